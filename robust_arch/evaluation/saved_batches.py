"""What an attack has finished so far, on disk while it runs: a killed evaluation resumes from there."""

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
    """The finished batches of one attack, by the position of their first example.

    The folder's name is a hash of everything that determines the results, so another attack never finds them.
    """

    def __init__(self, folder: Path, eval_id: str, identity: Mapping[str, Any]) -> None:
        self.path = folder / f".{eval_id}-{short_hash(identity)}"
        self._pending: dict[int, Part] = {}
        self._written = time.monotonic()

    def read(self, start: int) -> Part | None:
        """The batch that begins at `start`; None if it is not finished or its file is torn."""
        return read_arrays(self.path / f"{start}.npz", most=_MOST_BYTES)

    def add(self, start: int, part: Part, *, at_once: bool) -> None:
        """Keep a batch; written at once, or together with later ones once ten seconds have passed."""
        self._pending[start] = part
        if at_once or time.monotonic() - self._written >= _PATIENCE:
            for position, pending in self._pending.items():
                write_arrays(self.path / f"{position}.npz", pending)
            self._pending, self._written = {}, time.monotonic()

    def remove(self) -> None:
        """Remove them, once the attack is recorded."""
        shutil.rmtree(self.path, ignore_errors=True)


def remove_blocks(folder: Path, eval_id: str) -> None:
    """Remove what any attack of one evaluation left, including attacks that are no longer requested."""
    for path in folder.glob(f".{eval_id}-*"):
        shutil.rmtree(path, ignore_errors=True)
