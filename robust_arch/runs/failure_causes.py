"""Why an attempt of a run ended."""

import errno

from robust_arch.errors import DivergedError

ENDS = ("completed", "error", "out_of_memory", "not_finite", "disk_full", "killed", "interrupted")

_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# in the texts of torch's plain RuntimeErrors; its checkpoint writer hides the error number
_MEMORY_WORDS = ("out of memory", "can't allocate memory", "cannot allocate memory")
_DISK_WORDS = ("no space left on device", "disk quota exceeded", "file write failed", "iostream error")


def how_it_ended(error: BaseException | None) -> str:
    """One of ENDS; `killed` is derived later by readers of the record."""
    if error is None:
        return "completed"
    if not isinstance(error, Exception):
        return "interrupted"
    causes = _chain(error)
    if any(isinstance(cause, DivergedError) for cause in causes):
        return "not_finite"
    if any(_is_disk(cause) for cause in causes):
        return "disk_full"
    if any(isinstance(cause, MemoryError) or _says(cause, _MEMORY_WORDS) for cause in causes):
        return "out_of_memory"
    return "error"


def _is_disk(error: BaseException) -> bool:
    return (isinstance(error, OSError) and error.errno in _DISK) or _says(error, _DISK_WORDS)


def _says(error: BaseException, words: tuple[str, ...]) -> bool:
    return isinstance(error, OSError | RuntimeError) and any(word in str(error).lower() for word in words)


def _chain(error: BaseException) -> list[BaseException]:
    """The error and its causes and contexts."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    return chain
