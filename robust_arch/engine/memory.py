"""Memory that the C library keeps for the next tensor instead of returning it to the system after each one."""

import ctypes
import gc
from collections.abc import Callable

import torch

# mallopt's parameters, of glibc's <malloc.h>
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# bytes below which blocks are kept: older versions of glibc refuse more than 32 MiB
_LARGEST = (2**30, 2**25)


def keep_freed_memory() -> bool:
    """Let this process reuse freed blocks of up to 1 GiB, or 32 MiB; False where the C library is not glibc.

    Otherwise every operation maps activations of megabytes afresh, and the system clears each page at its first use.
    Results do not change; the process holds its peak of memory until it ends.
    """
    mallopt = _glibc("mallopt")
    if mallopt is None:
        return False
    kept = any(mallopt(_MMAP_THRESHOLD, size) for size in _LARGEST)
    return bool(mallopt(_TRIM_THRESHOLD, 2 * _LARGEST[0] - 1)) and kept


def release_memory() -> None:
    """Release the memory of a finished run before the next one starts in this process."""
    gc.collect()  # networks and trainers refer to each other in circles
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
    if malloc_trim := _glibc("malloc_trim"):
        malloc_trim(0)


def _glibc(name: str) -> Callable[..., int] | None:
    """A function of glibc, None where there is none."""
    try:
        function: Callable[..., int] = getattr(ctypes.CDLL("libc.so.6"), name)
    except (OSError, AttributeError):
        return None
    return function
