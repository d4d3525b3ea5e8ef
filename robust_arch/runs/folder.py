"""One run on disk: its state, its records, its checkpoints."""

import contextlib
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from robust_arch import __version__
from robust_arch.files import read_json, write_json
from robust_arch.runs import lock

SCHEMA = 1
_RECORD_KEYS = frozenset({"checkpoint", "weights", "threat", "data", "n_test", "clean", "attacks"})
STATES = ("planned", "running", "completed", "failed", "diverged")


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """The columns of results.csv that are known before a run starts; depths and widths like `5-5-5`.

    None: how a checkpoint from elsewhere was trained.
    """

    run_id: str
    study: str
    arch: str
    family: str
    depths: str
    widths: str
    params: int
    macs: int
    objective: str | None
    recipe: str | None
    train_threat: str | None
    data: str
    seed: int | None
    epochs: int | None


class RunFolder:
    """results/<study>/runs/<run_id>; reading never creates or changes anything."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.evaluations = path / "evaluations"
        self.config = path / "config.yaml"
        self.metrics = path / "metrics.csv"
        self.log = path / "train.log"
        self._status = path / "status.json"
        self._result = path / "result.json"
        self._lock = path / ".lock"

    @property
    def run_id(self) -> str:
        """The folder's name."""
        return self.path.name

    def lock(self) -> AbstractContextManager[bool]:
        """Claim the run for this process; yields False if another process has it."""
        return lock.held(self._lock)

    @property
    def is_locked(self) -> bool:
        """Whether some process works on the run, this one included."""
        return lock.is_held(self._lock)

    @property
    def status(self) -> dict[str, Any]:
        """What status.json says, or nothing if there is none or it is torn."""
        return read_json(self._status) or {}

    @property
    def last_error(self) -> str:
        """The last line of the error that status.json holds, or nothing."""
        lines = (self.status.get("error") or "").strip().splitlines()
        return str(lines[-1]) if lines else ""

    @property
    def state(self) -> str:
        """One of STATES; a run that says running while no process holds its lock was cut off and is planned again."""
        state = self.status.get("state", "planned")
        if state == "running" and not self.is_locked:
            return "planned"
        return str(state) if state in STATES else "planned"

    @property
    def stamp(self) -> int:
        """Another number after every write of status.json, by whatever process."""
        try:
            return self._status.stat().st_mtime_ns
        except OSError:
            return 0

    def write_state(
        self,
        state: str,
        facts: RunFacts,
        *,
        attempt: bool = False,
        error: str | None = None,
        end: str | None = None,
        notes: Mapping[str, str | None] | None = None,
    ) -> None:
        """Replace status.json; `attempt` counts one more.

        end: how the attempt ended, one of ENDS. notes: further facts, like the launcher; None leaves one out.
        """
        attempts = int(self.status.get("attempts", 0)) + int(attempt)
        write_json(
            self._status,
            {
                "schema": SCHEMA,
                "state": state,
                "attempts": attempts,
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "end": end,
                **{key: value for key, value in (notes or {}).items() if value is not None},
                "error": error,
                "updated": datetime.now(UTC).isoformat(timespec="seconds"),
                "run": asdict(facts),
            },
        )

    @property
    def end(self) -> str | None:
        """How the last attempt ended, one of ENDS; None if it goes on or that is not recorded."""
        status = self.status
        if status.get("state") == "running":
            return None if self.is_locked else "killed"
        return status.get("end")

    @property
    def recorded_config(self) -> dict[str, Any]:
        """What config.yaml holds, or nothing if there is none or it cannot be read."""
        try:
            content = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            return {}
        return content if isinstance(content, dict) else {}

    @property
    def result(self) -> dict[str, Any] | None:
        """What result.json says of a finished training, or None."""
        return read_json(self._result)

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Replace result.json, with schema and package version in front."""
        write_json(self._result, {"schema": SCHEMA, "package_version": __version__, **result})

    @property
    def trained(self) -> bool:
        """Whether training is over and both checkpoints are there."""
        files = (self.checkpoint("best"), self.checkpoint("last"))
        return self.result is not None and all(file.is_file() for file in files)

    def checkpoint(self, which: str) -> Path:
        """The file of `best` or `last`."""
        return self.checkpoints / f"{which}.ckpt"

    def evaluation_records(self) -> Iterator[dict[str, Any]]:
        """Every whole evaluation record; a foreign or half-written file is none."""
        for path in sorted(self.evaluations.glob("*.json")):
            if (record := read_json(path)) is not None and set(record) >= _RECORD_KEYS:
                yield record

    def clear(self) -> None:
        """Remove everything but the lock, for a run that is done again."""
        # checkpoints first: killed in between, what is left cannot be taken for a run to resume
        for path in sorted(self.path.iterdir(), key=lambda path: path != self.checkpoints):
            if path == self._lock:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()
