"""Hands runs to Hydra's launcher until each has ended: again after a failure, alone after its worker was killed."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hydra.core.utils import JobStatus
from hydra.plugins.launcher import Launcher

from robust_arch.configuration.evaluation import evaluation_keys
from robust_arch.configuration.nodes import as_override
from robust_arch.configuration.settings import Settings
from robust_arch.execution.execute import warn_of_other_version
from robust_arch.execution.run import Run
from robust_arch.runs.folder import wait_while_locked
from robust_arch.runs.study import PLAN_COLUMNS

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlannedRun:
    """A run of the plan, with the overrides that a job composes its settings from.

    Attributes:
        run: The run as it is planned.
        overrides: Hydra overrides; `changed` keeps them in step with the run.
    """

    run: Run
    overrides: tuple[str, ...]

    @classmethod
    def composed(cls, run: Run, overrides: Sequence[str]) -> "PlannedRun":
        """A run that was composed with `overrides`; its jobs get the precision that was resolved for the plan."""
        precision = as_override("trainer.precision", run.settings.trainer.precision)
        return cls(run, (*overrides, precision))

    def changed(self, **changes: Any) -> "PlannedRun":
        """A copy of the run with other settings.

        changes: Fields of `Settings`: `spec` (of the same family and stem), `seed`, `evaluation` or `rerun`.
        """
        before = self.run.settings
        settings = replace(before, **changes)
        keys = {key: value for name in changes for key, value in _KEYS[name](before, settings).items()}
        overrides = (as_override(key, value) for key, value in keys.items())
        return PlannedRun(replace(self.run, settings=settings), (*self.overrides, *overrides))

    def row(self) -> dict[str, Any]:
        """A row of plan.csv."""
        facts = self.run.facts
        return {key: getattr(facts, key) for key in PLAN_COLUMNS}

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left to try: the run is done, or it diverged, which it would do again."""
        return self.run.is_done() or self.run.folder.state == "diverged"


def _changed_evaluation(before: Settings, after: Settings) -> dict[str, Any]:
    old = evaluation_keys(before.evaluation)
    return {key: value for key, value in evaluation_keys(after.evaluation).items() if value != old[key]}


_KEYS: Mapping[str, Callable[[Settings, Settings], Mapping[str, Any]]] = {
    "spec": lambda _, after: {"arch.depths": after.spec.depths, "arch.widths": after.spec.widths},
    "seed": lambda _, after: {"seed": after.seed},
    "evaluation": _changed_evaluation,
    "rerun": lambda _, after: {"rerun": after.rerun},
}
"""By field of `Settings` that a study changes: the configuration's keys with their values, from before and after."""


def launch_until_settled(launcher: Launcher, runs: Sequence[PlannedRun], called: str = "runs") -> None:
    """Launch what is not done, wait for what another process is doing, and retry what failed.

    A run that failed or was killed has `study.retries` further attempts; one that was not started because a killed
    worker took the launcher down has used none. Returns early if the study is stopped after a failure.

    called: the name of these runs in the log.
    """
    if not runs:
        return
    waiting = [planned for planned in runs if planned.run.settings.rerun or not planned.is_settled]
    for planned in _without(runs, waiting):
        warn_of_other_version(planned.run.folder)
    log.info("%d of %d %s are done already%s", len(runs) - len(waiting), len(runs), called, _still_to_evaluate(waiting))
    tries: Counter[str] = Counter()
    while waiting:
        begun = _attempt(launcher, waiting)
        tries.update(planned.run.run_id for planned in begun)
        if all(planned.run.folder.end == "disk_full" for planned in begun) and begun:
            log.error("the disk is full: nothing is retried")
            return
        if not begun or runs[0].run.study.is_stopped:
            return
        untouched = _without(waiting, begun)
        again = [planned for planned in begun if tries[planned.run.run_id] <= planned.run.settings.retries]
        waiting = [*untouched, *(planned.changed(rerun=False) for planned in again if not planned.is_settled)]
        if waiting:
            log.info("%d runs are not done: retrying", len(waiting))


def _still_to_evaluate(waiting: Sequence[PlannedRun]) -> str:
    """How many of the runs are trained and lack only an evaluation; empty if there are none."""
    trained = sum(planned.run.folder.trained and not planned.run.settings.rerun for planned in waiting)
    return f"; trained, still to be evaluated: {trained}" if trained else ""


def _attempt(launcher: Launcher, waiting: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Hand runs to the launcher and wait until they have ended; returns those that were started.

    A run whose last attempt was killed may need more memory than there is. It is launched alone, after the other runs:
    a launcher with a pool of workers gives up on all of them if one is killed.
    """
    before = {planned.run.run_id: planned.run.folder.stamp for planned in waiting}
    suspects = [planned for planned in waiting if planned.run.folder.end == "killed"]
    for batch in [_without(waiting, suspects), *([suspect] for suspect in suspects)]:
        if batch and not batch[0].run.study.is_stopped:
            _launch(launcher, batch)
    _wait_for_others(waiting)
    return [planned for planned in waiting if planned.run.folder.stamp != before[planned.run.run_id]]


def _without(runs: Sequence[PlannedRun], others: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Compared by run_id, as comparing two runs compares all their settings."""
    left_out = {planned.run.run_id for planned in others}
    return [planned for planned in runs if planned.run.run_id not in left_out]


def _wait_for_others(runs: Sequence[PlannedRun]) -> None:
    busy = [planned.run.folder for planned in runs if planned.run.folder.is_locked]
    if busy:
        log.info("waiting for %d runs of another process", len(busy))
    wait_while_locked(busy)


def _launch(launcher: Launcher, runs: Sequence[PlannedRun]) -> None:
    try:
        returned = launcher.launch([list(planned.overrides) for planned in runs], initial_job_idx=0)
    except Exception as error:  # such as a killed worker; what it did is recorded
        log.error("the launcher failed: %s: %s", type(error).__name__, error)  # its traceback does not help
        return
    for planned, job in zip(runs, returned, strict=False):
        ended = getattr(job, "_return_value", None)
        # a failed run has logged its own error; a job can also end before its run starts
        if job.status == JobStatus.FAILED and type(ended).__name__ != "RunNotCompletedError":
            log.error("job of run %s failed: %s: %s", planned.run.run_id, type(ended).__name__, ended)
