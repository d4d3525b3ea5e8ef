"""A study: plans the runs inside the budget and hands them to the configured Hydra launcher."""

import logging
import sys
from collections.abc import Sequence

from hydra.core.config_loader import ConfigLoader
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from robust_arch.configuration.settings import study_command
from robust_arch.errors import InputError
from robust_arch.runs import StudyFolder
from robust_arch.study.launch import launch_until_settled
from robust_arch.study.plan import PlannedRun, StudyPlan, finalist_runs, plan_all

log = logging.getLogger(__name__)


def sweep(config: DictConfig, loader: ConfigLoader, launcher: Launcher, arguments: Sequence[str]) -> None:
    """Plan, launch what is not done, then evaluate the finalists.

    Raises:
        SystemExit: with status 1 unless every run of the plan is completed at the end.
    """
    try:
        plans, finalists = plan_all(config, loader, arguments)
        runs = _distinct(plans)
    except InputError as error:
        sys.exit(f"error: {error}")
    study = plans[0].study
    study.go_on()
    _record_plan(study, plans, runs, study_command(config.hydra, arguments))
    chosen: list[PlannedRun] = []
    with study.sweeping():
        launch_until_settled(launcher, runs)
        trained = [planned for planned in runs if planned.run.folder.trained]
        if finalists is not None and not study.is_stopped:
            chosen = finalist_runs(trained, finalists)
        launch_until_settled(launcher, chosen, "finalists")
    study.write_results()
    study.tell_left_out()
    undone = [planned for planned in [*runs, *chosen] if not planned.run.is_done()]
    completed = sum(planned.run.is_done() for planned in runs)
    log.info("%d of %d runs completed; results in %s", completed, len(runs), study.results_path)
    for planned in undone:
        folder = planned.run.folder
        how = ", ".join(filter(None, (folder.state, folder.end)))
        log.error("run %s is not done (%s): %s", planned.run.run_id, how, folder.path)
    if study.is_stopped:
        log.error("stopped after a failure; the remaining runs were not started")
    if undone:
        sys.exit(1)


def _record_plan(study: StudyFolder, plans: Sequence[StudyPlan], runs: Sequence[PlannedRun], command: str) -> None:
    about = {
        "command": command,
        "budgets": sorted({str(plan.budget) for plan in plans}),
        "considered": sum(plan.members.considered for plan in plans),
        "rejected": sum(plan.members.rejected_count for plan in plans),
        "not_sampled": sum(plan.members.not_sampled for plan in plans),
    }
    study.write_plan([planned.row() for planned in runs], about)


def _distinct(plans: Sequence[StudyPlan]) -> list[PlannedRun]:
    """All runs of all configurations, each run once; they must share one study folder."""
    if len({plan.study.path for plan in plans}) > 1:
        raise InputError("study.name: one study at a time; it cannot be swept over")
    return list({planned.run.run_id: planned for plan in plans for planned in plan.runs}.values())
