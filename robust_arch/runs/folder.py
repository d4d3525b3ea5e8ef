"""One run on disk: its state, records and checkpoints."""

import contextlib
import os
import shutil
import socket
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from robust_arch import __version__
from robust_arch.common.files import read_arrays, read_json, write_json
from robust_arch.common.plain import is_bounded
from robust_arch.errors import InputError
from robust_arch.runs import lock
from robust_arch.runs.fields import Fields, MisfitError
from robust_arch.runs.records import ELSEWHERE, Evaluation, RunFacts, RunResult, Status

if TYPE_CHECKING:
    import numpy as np

SCHEMA = 1
STATES = ("planned", "running", "completed", "failed", "diverged")
_ROOM = 16 * 1024
_POLL_SECONDS = 2.0
NO_OBJECT = "expected one whole JSON object"
Kind = TypeVar("Kind", bound=Fields)


@dataclass(frozen=True)
class RecordedRun:
    """What is recorded of a run, each file read at most once.

    Attributes:
        folder: the run's folder.
        status: status.json; None if it is missing or does not fit.
        state: one of STATES.
        end: how the last attempt ended, if it did, like `out_of_memory`.
        result: result.json of a finished training.
    """

    folder: "RunFolder"
    status: Status | None
    state: str
    end: str | None
    result: RunResult | None

    @property
    def run_id(self) -> str:
        """The name of the run's folder."""
        return self.folder.run_id

    @property
    def facts(self) -> RunFacts | None:
        """What is known of the run before it starts."""
        return self.status.run if self.status else None

    @property
    def error(self) -> str:
        """The last line of the recorded error, or nothing."""
        return last_line(self.status.error) if self.status else ""

    @cached_property
    def evaluations(self) -> list[Evaluation]:
        """Every evaluation record that fits."""
        return list(self.folder.evaluation_records())


class RunFolder:
    """results/<study>/runs/<run_id>; reading never creates or changes anything.

    A file that is incomplete or has a field that does not fit counts as missing.

    Attributes:
        path: the folder.
        left_out: files that were read and do not fit, like `runs/<run_id>/result.json`, to the reason; shared by the
            runs of a `StudyFolder`.
        checkpoints: the folder of best.ckpt and last.ckpt.
        evaluations: the folder of the evaluation records.
        config: the complete configuration of the run.
        metrics: one row per epoch.
        log: everything that was logged.
    """

    def __init__(self, path: Path, left_out: dict[str, str] | None = None) -> None:
        self.path = path
        self.left_out = {} if left_out is None else left_out
        self.checkpoints, self.evaluations = path / "checkpoints", path / "evaluations"
        self.config, self.metrics, self.log = path / "config.yaml", path / "metrics.csv", path / "train.log"
        self._status, self._result = path / "status.json", path / "result.json"
        self._reserve, self._lock = path / ".reserve", path / ".lock"

    @property
    def run_id(self) -> str:
        """The folder's name."""
        return self.path.name

    def lock(self) -> AbstractContextManager[bool]:
        """Claim the run for this process; yields False if another process holds it."""
        return lock.held(self._lock)

    @property
    def is_locked(self) -> bool:
        """Whether a process is working on the run, this one included."""
        return lock.is_held(self._lock)

    def read(self) -> RecordedRun:
        """What is recorded now."""
        status = self.status
        return RecordedRun(self, status, *self._state_and_end(status), self.result if status else None)

    def _state_and_end(self, status: Status | None) -> tuple[str, str | None]:
        """State and end that follow from status.json.

        A run that is recorded as running while no process holds its lock was killed, and is planned again.
        """
        if status is None:
            return "planned", None
        if status.state == "running":
            return ("running", None) if self.is_locked else ("planned", "killed")
        return status.state if status.state in STATES else "planned", status.end

    @property
    def status(self) -> Status | None:
        """status.json; None if it is missing or does not fit."""
        return self._read(Status, "status.json")

    def _read(self, kind: type[Kind], name: str) -> Kind | None:
        """The checked content of a file; None if it is missing or does not fit."""
        path, what = f"{self.path}/{name}", f"runs/{self.run_id}/{name}"
        self.left_out.pop(what, None)
        if (content := self._content(name)) is None:
            if os.path.lexists(path):
                self.left_out[what] = NO_OBJECT
            return None
        try:
            return kind.read(content)
        except MisfitError as misfit:
            self.left_out[what] = str(misfit)
            return None

    def _content(self, name: str) -> dict[str, Any] | None:
        """A JSON file of the run as it is; None if it is missing or not whole."""
        return read_json(f"{self.path}/{name}")

    @property
    def state(self) -> str:
        """One of STATES."""
        return self._state_and_end(self.status)[0]

    @property
    def end(self) -> str | None:
        """How the last attempt ended, like `out_of_memory`; `killed` if its process is gone and left no record."""
        return self._state_and_end(self.status)[1]

    @property
    def stamp(self) -> int:
        """A number that changes with every write of status.json, by any process."""
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
        """Replace status.json.

        Args:
            state: one of STATES.
            facts: what is known of the run before it starts.
            attempt: whether a new attempt begins.
            error: traceback of the attempt.
            end: how the attempt ended, one of ENDS.
            notes: further fields, like the launcher; None omits one.
        """
        before = self.status
        attempts = (before.attempts if before else 0) + int(attempt)
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
                "run": facts.plain(),
            },
        )

    @property
    def recorded_config(self) -> dict[str, Any]:
        """The content of config.yaml as plain data; empty if it is missing or cannot be read.

        The file may come from another machine: no interpolation is resolved, and nothing that it names is called.
        """
        try:
            content = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError, yaml.YAMLError):  # ValueError: no UTF-8, or no such date
            return {}
        return content if isinstance(content, dict) and is_bounded(content) else {}

    def recorded_group(self, name: str) -> dict[str, Any]:
        """A group of config.yaml; empty without one."""
        group = self.recorded_config.get(name)
        return group if isinstance(group, dict) else {}

    @property
    def result(self) -> RunResult | None:
        """result.json of a finished training."""
        return self._read(RunResult, "result.json")

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Replace result.json, headed by schema and package version."""
        write_json(self._result, {"schema": SCHEMA, "package_version": __version__, **result})

    @property
    def trained(self) -> bool:
        """Whether training is finished, with both checkpoints here or on the machine that the run was merged from."""
        if self.result is None:
            return False
        return self._has_weights or (self.status is not None and self.status.weights == ELSEWHERE)

    @property
    def _has_weights(self) -> bool:
        return self.has_checkpoint("best") and self.has_checkpoint("last")

    def require_weights(self) -> None:
        """Check that the checkpoints of a trained run are here.

        Raises:
            InputError: if the run was merged without them; names the machine that has them.
        """
        status = self.status
        if status and status.weights == ELSEWHERE and not self._has_weights:
            place = f"its weights are on {status.host}: evaluate there and merge again"
            raise InputError(f"checkpoint = {str(self.checkpoint('best'))!r}: only its records were merged; {place}")

    def has_checkpoint(self, which: str) -> bool:
        """Whether the checkpoint `best` or `last` exists and is complete."""
        # a checkpoint is a zip file, and a truncated one lacks the table of contents at its end
        return zipfile.is_zipfile(self.checkpoint(which))

    def checkpoint(self, which: str) -> Path:
        """The file of the checkpoint `best` or `last`."""
        return self.checkpoints / f"{which}.ckpt"

    def evaluation_records(self) -> Iterator[Evaluation]:
        """Every evaluation record that fits."""
        for eval_id in self.evaluation_ids():
            if (record := self.evaluation(eval_id)) is not None:
                yield record

    def evaluation_ids(self) -> list[str]:
        """The names of the evaluation records without suffix, sorted."""
        try:
            with os.scandir(self.evaluations) as entries:
                names = sorted(entry.name for entry in entries if entry.name.endswith(".json"))
        except OSError:
            return []
        return [name.removesuffix(".json") for name in names]

    def evaluation(self, eval_id: str, kind: type[Evaluation] = Evaluation) -> Evaluation | None:
        """An evaluation record, or one of a stricter `kind`; None if it is missing or does not fit."""
        return self._read(kind, f"evaluations/{eval_id}.json")

    def outcomes(self, eval_id: str) -> "dict[str, np.ndarray] | None":
        """The arrays of an evaluation, like one boolean per image and attack; None if they are missing or damaged."""
        return read_arrays(self.evaluations / f"{eval_id}.npz")

    def reserve_room(self) -> None:
        """Reserve some kilobytes, so that the end of the run can be recorded on a full disk."""
        self._reserve.write_bytes(bytes(_ROOM))

    def release_room(self) -> None:
        """Free the reserve."""
        self._reserve.unlink(missing_ok=True)

    def sweep_up(self) -> None:
        """Remove files that a killed process left incomplete; requires the lock."""
        for folder in (self.path, self.checkpoints, self.evaluations):
            for left in folder.glob("*.tmp"):
                left.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove everything but the lock, so that the run starts again."""
        # checkpoints first: if this is interrupted, the rest cannot be mistaken for a run to resume
        for path in sorted(self.path.iterdir(), key=lambda path: path != self.checkpoints):
            if path == self._lock:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()


def wait_while_locked(folders: Sequence[RunFolder]) -> None:
    """Wait until no process is working on any of these runs."""
    while any(folder.is_locked for folder in folders):
        time.sleep(_POLL_SECONDS)


def last_line(error: str | None) -> str:
    """The last line of a traceback, or an empty string; control characters become question marks."""
    lines = (error or "").strip().splitlines()
    return "".join(letter if letter.isprintable() else "?" for letter in lines[-1]) if lines else ""
