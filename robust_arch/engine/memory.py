"""Memory that the C library keeps for the next tensor instead of giving it back to the system after each one."""

import ctypes
import sys

# mallopt's parameters, of glibc's <malloc.h>
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# bytes below which blocks are kept: older versions of glibc refuse more than 32 MiB
_LARGEST = (2**30, 2**25)


def keep_freed_memory() -> bool:
    """Let this process reuse freed blocks of up to 1 GiB, or 32 MiB; False where the C library cannot be told to.

    Activations of megabytes are otherwise mapped afresh by every operation, and the system clears each page at its
    first use. What a computation gives does not change; the process holds its peak of memory until it ends.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    kept = any(mallopt(_MMAP_THRESHOLD, size) for size in _LARGEST)
    return bool(mallopt(_TRIM_THRESHOLD, 2 * _LARGEST[0] - 1)) and kept
