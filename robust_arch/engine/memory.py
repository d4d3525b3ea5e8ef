"""Memory that the C library keeps for the next tensor instead of giving it back to the system after each one."""

import ctypes
import sys

# mallopt's parameters, of glibc's <malloc.h>
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST = 2**30  # bytes, half of what mallopt takes


def keep_freed_memory() -> bool:
    """Let this process reuse freed blocks of up to 1 GiB; False where the C library is not glibc.

    Activations of megabytes are otherwise mapped afresh by every operation, and the system clears each page at its
    first use. What a computation gives does not change; the process holds its peak of memory until it ends.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST)) and bool(mallopt(_TRIM_THRESHOLD, 2 * _LARGEST - 1))
