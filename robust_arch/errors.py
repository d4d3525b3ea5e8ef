"""The two ways a run can end early: what the user asked for is not possible, or the training blew up."""

from typing import Any


class InputError(ValueError):
    """Something the user gave (a key, a file, a tensor) is not allowed; nothing was started or changed."""


class DivergedError(RuntimeError):
    """The loss or a weight is no longer finite; the run is recorded as diverged and is not tried again."""


def invalid(key: str, value: Any, allowed: str) -> InputError:
    """An InputError that names the key, the value that was given and what is allowed."""
    return InputError(f"{key} = {value!r}: {allowed}")


def require_flag(key: str, value: object) -> None:
    """Raise InputError unless the value is true or false; any other word would count as true."""
    if not isinstance(value, bool):
        raise invalid(key, value, "true or false")
