"""A study: plans the runs inside the budget and hands them to the configured Hydra launcher."""

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from robust_arch.configuration.evaluation import Finalists, read_finalists, read_threat
from robust_arch.configuration.search import read_budget, read_sample, read_seeds, read_space
from robust_arch.configuration.settings import read_settings, study_command
from robust_arch.data import ImageSet
from robust_arch.errors import InputError, invalid
from robust_arch.execution.run import Run
from robust_arch.runs import StudyFolder
from robust_arch.search import Budget, Candidates, Halving
from robust_arch.study.composition import configurations
from robust_arch.study.launch import PlannedRun, launch_until_settled
from robust_arch.study.optimiser import read_objectives, refuse_allocation

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StudyPlan:
    """The plan of one configuration.

    Attributes:
        runs: One per architecture inside the budget and seed.
        members: The architectures of the space inside the budget, and what was rejected.
        budget: The budget.
        study: The study's folder.
        halving: The rungs of which these runs are the first, in successive halving.
    """

    runs: tuple[PlannedRun, ...]
    members: Candidates
    budget: Budget
    study: StudyFolder
    halving: Halving | None = None


def plan_study(cfg: DictConfig, overrides: Sequence[str]) -> StudyPlan:
    """Check everything and plan; trains and writes nothing.

    cfg: a composed configuration. overrides: those it was composed with, which are passed to every job.

    Raises:
        InputError: if a value is not allowed, or no architecture of the space meets the budget.
    """
    settings = read_settings(cfg)
    refuse_allocation(cfg)
    read_objectives(cfg)
    require_jobs()
    base = Run.load(settings)
    train = base.splits.train
    task = (train.num_classes, train.image_shape)
    space, budget, seeds = read_space(cfg), read_budget(cfg, *task), read_seeds(cfg)
    members = read_sample(cfg).of(space.members(budget, *task), *task, budget.counted)
    if not members.specs:
        nearest = f"; nearest: {members.rejected[0].description}: {members.rejected[0].reason}" * bool(members.rejected)
        raise InputError(
            f"search.budget = {budget}: none of the {members.considered} points of search.space meets it{nearest}"
        )
    members.require_plannable(len(seeds))
    template = PlannedRun.composed(base, overrides)
    runs = [template.changed(spec=spec, seed=seed) for spec in members.specs for seed in seeds]
    return StudyPlan(tuple(runs), members, budget, StudyFolder(base.settings.study_path))


def require_jobs() -> None:
    """Raise InputError for a number of simultaneous jobs that joblib would refuse in the middle of the sweep."""
    jobs = HydraConfig.get().launcher.get("n_jobs", 1) if HydraConfig.initialized() else 1
    if jobs is not None and (isinstance(jobs, bool) or not isinstance(jobs, int) or not jobs):
        raise invalid("hydra.launcher.n_jobs", jobs, "an integer of at least 1, or -1 for as many as there are cores")


def plan_all(
    config: DictConfig, loader: ConfigLoader, arguments: Sequence[str]
) -> tuple[list[StudyPlan], Finalists | None]:
    """The plan per combination of swept values, and the finalists' evaluation, all checked."""
    plans = []
    finalists = None
    for composed, combination in configurations(config, loader, arguments):
        plans.append(plan_study(composed, combination))
        finalists = checked_finalists(composed, plans[-1].runs[0].run.splits.test)
    return plans, finalists


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
    launch_until_settled(launcher, runs)
    trained = [planned for planned in runs if planned.run.folder.trained]
    chosen = finalist_runs(trained, finalists) if finalists is not None and not study.is_stopped else []
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


def checked_finalists(cfg: DictConfig, test: ImageSet) -> Finalists | None:
    """`study.finalists`, or None; raises InputError where it does not fit these test images."""
    finalists = read_finalists(cfg)
    if finalists is not None:
        finalists.evaluation.require_fits(len(test), test.num_classes, read_threat(cfg.threat).eps)
    return finalists


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


def finalist_runs(trained: Sequence[PlannedRun], finalists: Finalists) -> list[PlannedRun]:
    """The best runs by robust accuracy on held-out images, with the evaluation of finalists."""

    def held_out(planned: PlannedRun) -> float:
        result = planned.run.folder.result
        return result.best_val_robust_acc if result else -1.0

    best = sorted(trained, key=held_out, reverse=True)[: finalists.top]
    return [planned.changed(evaluation=finalists.evaluation, rerun=False) for planned in best]
