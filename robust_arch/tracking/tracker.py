"""wandb for one run; its failures never stop the run."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robust_arch.tracking.attacked_images import COLUMNS

log = logging.getLogger(__name__)


class Tracker:
    """A tracker that ignores rows and summary, for `logger=csv`: metrics.csv is the record.

    Attributes:
        problem: what went wrong with tracking, for the run's record.
    """

    problem: str | None = None

    def start(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Open, with the rows of the epochs that an interrupted attempt completed."""

    def log(self, row: Mapping[str, float]) -> None:
        """Track one epoch: a row of metrics.csv."""

    def log_images(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Track attacked images: rows of `attacked_images`."""

    def finish(self, summary: Mapping[str, Any], *, failed: bool) -> None:
        """Track the final numbers and close."""


class Trackers(Tracker):
    """Several trackers as one."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self.trackers = trackers

    @property
    def problem(self) -> str | None:  # type: ignore[override]
        """The problems of all, or None."""
        return "; ".join(each.problem for each in self.trackers if each.problem) or None

    def start(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Open each."""
        for each in self.trackers:
            each.start(rows)

    def log(self, row: Mapping[str, float]) -> None:
        """Track one epoch with each."""
        for each in self.trackers:
            each.log(row)

    def log_images(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Track attacked images with the one that takes them, which reads `rows` where a failure stops no run."""
        for each in self.trackers:
            each.log_images(rows)

    def finish(self, summary: Mapping[str, Any], *, failed: bool) -> None:
        """Track the final numbers with each and close it."""
        for each in self.trackers:
            each.finish(summary, failed=failed)


class WandbTracker(Tracker):
    """One wandb run per run, offline by default; after a resume, the newest offline run has all rows.

    Rows have the times at which their epochs ended, also those of an earlier attempt. The x-axis is the epoch; the
    trainer's step is a metric of its own, because wandb drops rows whose step it has already seen.
    """

    def __init__(
        self,
        folder: Path,
        *,
        run_id: str,
        name: str,
        group: str,
        tags: Sequence[str],
        config: Mapping[str, Any],
        project: str,
        mode: str,
    ) -> None:
        self.folder, self.run_id, self.name, self.group, self.tags = folder, run_id, name, group, tags
        self.config, self.project, self.mode = config, project, mode
        self._run: Any = None

    def __getstate__(self) -> dict[str, Any]:
        # worker processes of a multi-device run get a closed tracker: the parent replays metrics.csv
        return {**self.__dict__, "_run": None}

    def start(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Open and replay `rows`; without a connection, record offline."""
        self._guarded("start", self._open)
        if self._run is None and self.mode == "online":
            self.mode = "offline"
            self._guarded("start", self._open)
            self.problem = f"{self.problem}; recorded offline, `wandb sync` uploads it"
        if getattr(self._run, "resumed", False):  # online, wandb has the rows already
            return
        for row in rows:
            self.log(row)

    def _open(self) -> None:
        import wandb  # imported here because it takes seconds, and logger=csv does not need it

        self._set_aside_interrupted()
        self._run = wandb.init(
            project=self.project,
            id=f"{self.run_id}-{self.group}",
            name=self.name,
            group=self.group,
            job_type="train",
            tags=list(self.tags),
            config=dict(self.config),
            dir=self.folder,
            mode="online" if self.mode == "online" else "offline",
            resume="allow" if self.mode == "online" else None,
            reinit="finish_previous",
            settings=wandb.Settings(silent=True, console="off", init_timeout=30),
        )
        self._run.define_metric("epoch")
        self._run.define_metric("*", step_metric="epoch")

    def _set_aside_interrupted(self) -> None:
        """Rename earlier offline runs of this run, so that `wandb sync` uploads only the complete one."""
        for earlier in sorted((self.folder / "wandb").glob("offline-run-*")):
            earlier.rename(earlier.with_name(earlier.name.replace("offline-run", "superseded-run", 1)))

    def log(self, row: Mapping[str, float]) -> None:
        """Track one epoch at the time at which it ended; a row of an earlier version has none, and gets the present."""
        if self._run is not None:
            named = {"step": "trainer/global_step", "time": "_timestamp"}
            values = {named.get(key, key): value for key, value in row.items()}
            self._guarded("log", lambda: self._run.log(values))

    def log_images(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Log the table `attacked_images`."""
        if self._run is not None:
            self._guarded("images", lambda: self._log_table(rows))

    def _log_table(self, rows: Iterable[Mapping[str, Any]]) -> None:
        import wandb

        table = wandb.Table(columns=list(COLUMNS))
        for row in rows:
            cells = (row[column] for column in COLUMNS)
            table.add_data(*(wandb.Image(cell) if isinstance(cell, np.ndarray) else cell for cell in cells))
        self._run.log({"attacked_images": table})

    def finish(self, summary: Mapping[str, Any], *, failed: bool) -> None:
        """Write the final numbers to the summary and close, with exit code 1 if the run failed."""
        if self._run is not None:
            self._guarded("summary", lambda: self._run.summary.update(dict(summary)))
            self._guarded("finish", lambda: self._run.finish(exit_code=int(failed)))
            self._run = None

    def _guarded(self, what: str, action: Callable[[], Any]) -> None:
        try:
            action()
        except Exception as error:  # tracking must never fail a run
            self.problem = f"wandb {what} failed: {type(error).__name__}: {error}"
            log.warning("%s; the run continues without wandb", self.problem)
            self._run = None
