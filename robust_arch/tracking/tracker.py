"""wandb for one run: whatever goes wrong with it, the run goes on."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


class Tracker:
    """Takes rows and a summary and does nothing with them: `logger=csv`, where metrics.csv is the record.

    problem: what went wrong with tracking, for the run's record.
    """

    problem: str | None = None

    def start(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Open, and take over the rows of the epochs that an interrupted attempt already did."""

    def log(self, row: Mapping[str, float]) -> None:
        """One epoch."""

    def finish(self, summary: Mapping[str, Any], *, failed: bool) -> None:
        """Final numbers, and close."""


class WandbTracker(Tracker):
    """One wandb run a run, offline by default; after a resume the newest offline run is complete in itself.

    Rows carry the trainer's step as a metric of their own rather than as wandb's step, which drops rows that are
    logged again after a resume.
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
        # processes of a multi-device run get a tracker that is not open: the parent replays metrics.csv
        return {**self.__dict__, "_run": None}

    def start(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Open, and replay `rows`; what cannot be uploaded is recorded offline."""
        self._guarded("start", self._open)
        if self._run is None and self.mode == "online":
            self.mode = "offline"
            self._guarded("start", self._open)
            self.problem = f"{self.problem}; recorded offline, `wandb sync` uploads it"
        if getattr(self._run, "resumed", False):  # online, the rows are there already
            return
        for row in rows:
            self.log(row)

    def _open(self) -> None:
        import wandb  # takes seconds to import, and csv runs never need it

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
        self._run.define_metric("trainer/global_step")
        self._run.define_metric("*", step_metric="trainer/global_step")

    def _set_aside_interrupted(self) -> None:
        """Rename this run's earlier offline runs: `wandb sync` of all that are left uploads each run once, complete."""
        for earlier in sorted((self.folder / "wandb").glob("offline-run-*")):
            earlier.rename(earlier.with_name(earlier.name.replace("offline-run", "superseded-run", 1)))

    def log(self, row: Mapping[str, float]) -> None:
        """One epoch, against the trainer's step."""
        if self._run is not None:
            values = {**row, "trainer/global_step": row["step"]}
            del values["step"]
            self._guarded("log", lambda: self._run.log(values))

    def finish(self, summary: Mapping[str, Any], *, failed: bool) -> None:
        """Final numbers into the summary, then close, with exit code 1 if the run failed."""
        if self._run is not None:
            self._guarded("summary", lambda: self._run.summary.update(dict(summary)))
            self._guarded("finish", lambda: self._run.finish(exit_code=int(failed)))
            self._run = None

    def _guarded(self, what: str, action: Callable[[], Any]) -> None:
        try:
            action()
        except Exception as error:  # wandb is never a reason for a run to fail
            self.problem = f"wandb {what} failed: {type(error).__name__}: {error}"
            log.warning("%s; the run goes on without", self.problem)
            self._run = None
