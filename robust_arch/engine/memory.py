"""Memory that the C library keeps for the next tensor instead of giving it back to the system after each one."""

import ctypes
import gc
import sys
from collections.abc import Callable

import torch

# mallopt's parameters, of glibc's <malloc.h>
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# bytes below which blocks are kept: older versions of glibc refuse more than 32 MiB
_LARGEST = (2**30, 2**25)


def keep_freed_memory() -> bool:
    """Let this process reuse freed blocks of up to 1 GiB, or 32 MiB; False where the C library cannot be told to.

    Activations of megabytes are otherwise mapped afresh by every operation, and the system clears each page at its
    first use. What a computation gives does not change; the process holds its peak of memory until it ends.
    """
    mallopt = _of_the_c_library("mallopt")
    if mallopt is None:
        return False
    kept = any(mallopt(_MMAP_THRESHOLD, size) for size in _LARGEST)
    return bool(mallopt(_TRIM_THRESHOLD, 2 * _LARGEST[0] - 1)) and kept


def release_memory() -> None:
    """Give back what a finished run held, so that the next one in this process begins with nothing of it."""
    gc.collect()  # networks and trainers refer to each other in circles
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
    malloc_trim = _of_the_c_library("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _of_the_c_library(name: str) -> Callable[..., int] | None:
    """A function of glibc, None where there is none."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        found: Callable[..., int] = getattr(ctypes.CDLL("libc.so.6"), name)
    except (OSError, AttributeError):
        return None
    return found
