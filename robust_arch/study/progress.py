"""The progress of a study: its runs and their records, counts, the best run so far, the time left."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from robust_arch.runs import RecordedRun, RunResult
from robust_arch.runs.metrics import read_rows
from robust_arch.runs.records import ELSEWHERE
from robust_arch.runs.study import StudyFolder
from robust_arch.study.speed import Speed

ENDED = ("completed", "failed", "diverged")


@dataclass(frozen=True)
class RunProgress:
    """One run.

    Attributes:
        record: what is recorded of it.
        planned: its row of plan.csv; empty for a run outside the plan.
    """

    record: RecordedRun
    planned: Mapping[str, str]

    @property
    def run_id(self) -> str:
        """The run's name."""
        return self.record.run_id

    @cached_property
    def state(self) -> str:
        """One of STATES, or `evaluating`: it is trained, and a process is working on it."""
        state = self.record.state
        at_work = self.record.result and state in ("running", "completed") and self.record.folder.is_locked
        return "evaluating" if at_work else state

    @property
    def active(self) -> bool:
        """Whether a process is training or evaluating it."""
        return self.state in ("running", "evaluating")

    @cached_property
    def facts(self) -> Mapping[str, Any]:
        """What is known of the run before it starts; before its first attempt, its row of the plan."""
        return dict(self.record.facts or self.planned)

    @property
    def lost(self) -> bool:
        """Whether the last attempt failed, diverged or was killed."""
        return self.state in ("failed", "diverged") or self.record.end == "killed"

    @cached_property
    def epochs_done(self) -> int:
        """Completed epochs of the training; from metrics.csv while it is running."""
        if self.record.result:
            return self.record.result.last_epoch + 1
        return len(read_rows(self.record.folder.metrics)) if self.record.status else 0

    def seconds_since_start(self, now: datetime) -> float | None:
        """Seconds since a process began to train or evaluate the run; None if none does."""
        status = self.record.status
        if not self.active or status is None or status.updated is None:
            return None
        return (now - datetime.fromisoformat(status.updated)).total_seconds()

    @property
    def weights_at(self) -> str | None:
        """The machine that has the weights of a merged run; None for any other run."""
        status = self.record.status
        return status.host if status and status.weights == ELSEWHERE else None

    @property
    def macs(self) -> int:
        """Multiply-accumulates per image; 0 where that is not known."""
        return int(self.facts.get("macs") or 0)

    def seconds_left(self, speed: Speed, epochs: int) -> float:
        """Seconds of training left; `epochs`: of a run whose number of epochs is not recorded."""
        if self.state in ENDED or self.record.result:
            return 0.0
        left = int(self.facts.get("epochs") or epochs) - self.epochs_done
        return speed.seconds(self.macs, max(0, left))


def epoch_at_work(done: int, epochs: int | None) -> str:
    """The epoch after `done` complete ones, like `epoch 4 of 10`; the last one while its end is being recorded."""
    return f"epoch {done + 1 if epochs is None else min(done + 1, epochs)} of {epochs}"


@dataclass(frozen=True)
class TimeLeft:
    """Seconds until all runs are trained, from `completed` runs, if as many continue `at_once` as now."""

    seconds: float
    completed: int
    at_once: int


@dataclass(frozen=True)
class StudyProgress:
    """The runs of the plan in its order, then those outside it, at one moment.

    Attributes:
        name: Of the study.
        runs: What is recorded of them.
        now: The moment.
        swept: Whether a command is at work on the study as a whole, to which finalists or a next rung may be left.
        left_out: Files, and rows of plan.csv, that do not fit, to why.
    """

    name: str
    runs: Sequence[RunProgress]
    now: datetime
    swept: bool = False
    left_out: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, study: StudyFolder) -> "StudyProgress":
        """As the study is now."""
        planned = {row["run_id"]: row for row in study.read_plan()}
        rows: dict[str, Mapping[str, str]] = dict(planned)
        for run in study.runs():
            rows.setdefault(run.run_id, {})
        runs = [RunProgress(study.run(run_id).read(), row) for run_id, row in rows.items()]
        return cls(study.name, runs, datetime.now(UTC), study.is_swept, study.left_out)

    @cached_property
    def states(self) -> Counter[str]:
        """Runs by state."""
        return Counter(run.state for run in self.runs)

    @cached_property
    def killed(self) -> int:
        """Runs that count as planned because their process was killed."""
        return sum(run.record.end == "killed" for run in self.runs)

    @cached_property
    def launchers(self) -> Counter[str]:
        """Runs by what started their last attempt, where that is recorded."""
        statuses = (run.record.status for run in self.runs)
        return Counter(status.launcher for status in statuses if status and status.launcher)

    @property
    def all_ended(self) -> bool:
        """Whether no run is planned, running or being evaluated."""
        return all(run.state in ENDED for run in self.runs)

    @property
    def ended(self) -> bool:
        """Whether all runs have ended and no command is at work on the study."""
        return self.all_ended and not self.swept

    @property
    def best(self) -> RunProgress | None:
        """The completed run of highest held-out robust accuracy; of equals the first."""
        best = max(self._trained, key=lambda pair: pair[1].best_val_robust_acc, default=None)
        return best[0] if best else None

    @cached_property
    def _trained(self) -> list[tuple[RunProgress, RunResult]]:
        """The completed runs and those being evaluated, with their results."""
        trained = ("completed", "evaluating")
        return [(run, run.record.result) for run in self.runs if run.state in trained and run.record.result]

    @cached_property
    def time_left(self) -> TimeLeft | None:
        """By the median speed of the completed runs; None without one, or with nothing left."""
        trained = self._trained
        speed = Speed.of((result.train_seconds, run.macs, run.epochs_done) for run, result in trained)
        if speed is None:
            return None
        epochs = statistics.mode(int(run.facts.get("epochs") or run.epochs_done) for run, _ in trained)
        at_once = max(1, sum(run.active for run in self.runs))
        seconds = sum(run.seconds_left(speed, epochs) for run in self.runs) / at_once
        return TimeLeft(seconds, speed.trainings, at_once) if seconds else None
