"""Which GPUs a run uses: simultaneous jobs on one machine choose different ones."""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from itertools import count as counting
from pathlib import Path

from robust_arch.runs import lock


def visible_gpus(number: int) -> list[str]:
    """A name for each of the `number` GPUs that torch sees, equal in all processes on the machine."""
    listed = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return (listed if len(listed) >= number else [str(index) for index in range(number)])[:number]


@contextlib.contextmanager
def claimed(names: Sequence[str], wanted: int, folder: Path | None = None) -> Iterator[tuple[int, ...]]:
    """Hold `wanted` of the named GPUs, those with the fewest runs first; yields their positions in `names`.

    A claim is a file lock, which ends with the process. More runs than GPUs share them evenly.
    CUDA_VISIBLE_DEVICES is not changed, because torch ignores changes once it is initialised.

    Args:
        names: of the GPUs.
        wanted: number of GPUs.
        folder: of the locks; by default in the machine's temporary folder.
    """
    folder = folder or Path(tempfile.gettempdir()) / f"robust_arch-gpus-{os.getuid()}"
    taken: list[int] = []
    with contextlib.ExitStack() as claims:
        for place in counting():  # the first run on each GPU, then the second on each, ...
            for index, name in enumerate(names):
                if len(taken) < wanted and index not in taken:
                    claim = lock.held(folder / f"{name}.{place}", patience=0)
                    if claims.enter_context(claim):
                        taken.append(index)
            if len(taken) == min(wanted, len(names)):
                break
        yield tuple(sorted(taken))
