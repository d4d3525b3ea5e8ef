"""Hands runs to Hydra's launcher until each has ended: again after a failure, alone after its worker was killed."""

import logging
from collections import Counter
from collections.abc import Sequence

from hydra.core.utils import JobStatus
from hydra.plugins.launcher import Launcher

from robust_arch.errors import RunNotCompletedError
from robust_arch.execution.execute import warn_of_other_version
from robust_arch.runs.folder import wait_while_locked
from robust_arch.study.live_display import live_display
from robust_arch.study.plan import PlannedRun

log = logging.getLogger(__name__)


def launch_until_settled(launcher: Launcher, runs: Sequence[PlannedRun], called: str = "runs") -> None:
    """Launch unfinished runs, wait for those of other processes, and retry failed ones.

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
    if waiting:
        with live_display(runs, called):
            _launch_until_settled(launcher, runs, waiting)


def _launch_until_settled(launcher: Launcher, runs: Sequence[PlannedRun], waiting: list[PlannedRun]) -> None:
    """The loop; waiting: those of `runs` that are not settled."""
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
        if job.status == JobStatus.FAILED and not isinstance(ended, RunNotCompletedError):
            log.error("job of run %s failed: %s: %s", planned.run.run_id, type(ended).__name__, ended)
