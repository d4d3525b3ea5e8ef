"""The progress of a study: its runs and their records, counts, the best run so far, the time left."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from robust_arch.runs.folder import ELSEWHERE, HeldOut, RunFolder, last_line
from robust_arch.runs.metrics import read_rows
from robust_arch.runs.study import StudyFolder
from robust_arch.study.speed import Speed

ENDED = ("completed", "failed", "diverged")


@dataclass(frozen=True)
class RunProgress:
    """One run, each of its files read at most once.

    Attributes:
        run: Its folder.
        planned: Its row of plan.csv, empty for a run outside the plan.
        status: The content of status.json.
        result: The content of result.json, once it is trained.
        state: One of STATES.
        end: How the last attempt ended, if it did.
    """

    run: RunFolder
    planned: Mapping[str, str]
    status: Mapping[str, Any]
    result: Mapping[str, Any] | None
    state: str
    end: str | None

    @classmethod
    def read(cls, run: RunFolder, planned: Mapping[str, str]) -> "RunProgress":
        """As the run is now."""
        status = run.status
        result = run.result if status else None
        return cls(run, planned, status, result, run.state_in(status), run.end_in(status))

    @property
    def facts(self) -> Mapping[str, Any]:
        """What is known of the run before it starts; before its first attempt, its row of the plan."""
        return self.status.get("run") or self.planned

    @property
    def lost(self) -> bool:
        """Whether the last attempt failed, diverged or was killed."""
        return self.state in ("failed", "diverged") or self.end == "killed"

    @cached_property
    def epochs_done(self) -> int:
        """Completed epochs of the training; from metrics.csv while it is running."""
        if self.result is not None:
            return int(self.result["last_epoch"]) + 1
        return len(read_rows(self.run.metrics)) if self.status else 0

    def seconds_since_start(self, now: datetime) -> float | None:
        """Seconds since the current attempt of a running run started; None for any other run."""
        if self.state != "running" or "updated" not in self.status:
            return None
        return (now - datetime.fromisoformat(self.status["updated"])).total_seconds()

    @property
    def held_out(self) -> HeldOut | None:
        """What a finished training reached on held-out images."""
        return HeldOut.of(self.result) if self.result is not None else None

    @property
    def error(self) -> str:
        """The last line of the recorded error, or nothing."""
        return last_line(self.status.get("error"))

    @property
    def weights_at(self) -> str | None:
        """The machine that has the weights of a merged run; None for any other run."""
        return self.status.get("host") if self.status.get("weights") == ELSEWHERE else None

    @property
    def macs(self) -> int:
        """Multiply-accumulates per image; 0 where that is not known."""
        return int(self.facts.get("macs") or 0)

    def seconds_left(self, speed: Speed, epochs: int) -> float:
        """Of training. epochs: where the run does not tell how many it has."""
        if self.state in ENDED or self.result is not None:
            return 0.0
        left = int(self.facts.get("epochs") or epochs) - self.epochs_done
        return speed.seconds(self.macs, max(0, left))


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
        left_out: Files, and rows of plan.csv, that do not fit, to why.
    """

    name: str
    runs: Sequence[RunProgress]
    now: datetime
    left_out: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, study: StudyFolder) -> "StudyProgress":
        """As the study is now."""
        planned = {row["run_id"]: row for row in study.read_plan()}
        rows: dict[str, Mapping[str, str]] = dict(planned)
        for run in study.runs():
            rows.setdefault(run.run_id, {})
        runs = [RunProgress.read(study.run(run_id), row) for run_id, row in rows.items()]
        return cls(study.name, runs, datetime.now(UTC), study.left_out)

    @cached_property
    def states(self) -> Counter[str]:
        """Runs by state."""
        return Counter(run.state for run in self.runs)

    @cached_property
    def killed(self) -> int:
        """Runs that count as planned because their process was killed."""
        return sum(run.end == "killed" for run in self.runs)

    @cached_property
    def launchers(self) -> Counter[str]:
        """Runs by what started their last attempt, where that is recorded."""
        return Counter(name for run in self.runs if (name := run.status.get("launcher")))

    @property
    def ended(self) -> bool:
        """Whether nothing is planned or running."""
        return all(run.state in ENDED for run in self.runs)

    @property
    def best(self) -> RunProgress | None:
        """The completed run of highest held-out robust accuracy; of equals the first."""
        completed = [run for run in self.runs if run.state == "completed" and run.held_out]
        return max(completed, key=lambda run: run.held_out or HeldOut(0.0, 0), default=None)

    @cached_property
    def time_left(self) -> TimeLeft | None:
        """By the median speed of the completed runs; None without one, or with nothing left."""
        trained = [(run, run.result) for run in self.runs if run.state == "completed" and run.result is not None]
        speed = Speed.of((float(result["train_seconds"]), run.macs, run.epochs_done) for run, result in trained)
        if speed is None:
            return None
        epochs = statistics.mode(int(run.facts.get("epochs") or run.epochs_done) for run, _ in trained)
        at_once = max(1, self.states["running"])
        seconds = sum(run.seconds_left(speed, epochs) for run in self.runs) / at_once
        return TimeLeft(seconds, speed.trainings, at_once) if seconds else None
