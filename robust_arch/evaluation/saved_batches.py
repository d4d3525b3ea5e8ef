"""What an attack has finished so far, on disk while it runs: a killed evaluation goes on from there."""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from robust_arch.common.files import read_arrays, write_arrays
from robust_arch.common.identity import short_hash

_PATIENCE = 10.0  # seconds of work that may be lost
_MOST_BYTES = 2**32  # of a batch with its attacked images

Part = dict[str, np.ndarray]


class Blocks:
    """The batches of one attack that are done, by the position of their first example.

    The folder's name is a hash of everything that determines the results: another attack never finds these.
    """

    def __init__(self, folder: Path, eval_id: str, identity: Mapping[str, Any]) -> None:
        self.path = folder / f".{eval_id}-{short_hash(identity)}"
        self._pending: dict[int, Part] = {}
        self._written = time.monotonic()

    def read(self, start: int) -> Part | None:
        """The batch that begins at `start`, or None if it is not done or its file is torn."""
        return read_arrays(self.path / f"{start}.npz", most=_MOST_BYTES)

    def add(self, start: int, part: Part, *, at_once: bool) -> None:
        """Keep a batch; written at once, or with others once ten seconds have passed."""
        self._pending[start] = part
        if at_once or time.monotonic() - self._written >= _PATIENCE:
            for position, pending in self._pending.items():
                write_arrays(self.path / f"{position}.npz", pending)
            self._pending, self._written = {}, time.monotonic()

    def remove(self) -> None:
        """The attack is recorded as a whole."""
        shutil.rmtree(self.path, ignore_errors=True)


def remove_blocks(folder: Path, eval_id: str) -> None:
    """Remove what any attack of one evaluation left, also one that is not asked for any more."""
    for path in folder.glob(f".{eval_id}-*"):
        shutil.rmtree(path, ignore_errors=True)
