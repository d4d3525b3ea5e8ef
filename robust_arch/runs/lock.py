"""A lock that the operating system releases when its process ends, however it ends."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PATIENCE = 1.0  # seconds; `is_held` keeps a lock for less, a run for far longer


@contextmanager
def held(path: Path, patience: float = _PATIENCE) -> Iterator[bool]:
    """Try to take the lock on `path` for `patience` seconds; yields whether this process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        yield _take(descriptor, time.monotonic() + patience)
    finally:
        os.close(descriptor)


def _take(descriptor: int, deadline: float) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
        else:
            return True


@contextmanager
def shared(path: Path) -> Iterator[None]:
    """Hold the lock on `path` together with any others that do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Whether a process holds the lock for itself; never creates the file."""
    return _refuses(path, fcntl.LOCK_SH)


def is_shared(path: Path) -> bool:
    """Whether any process holds the lock, shared or for itself; never creates the file."""
    return _refuses(path, fcntl.LOCK_EX)


def _refuses(path: Path, kind: int) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # some file systems want a file that is open for writing
        return False
    finally:
        os.close(descriptor)
    return False
