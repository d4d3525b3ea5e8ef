"""The errors that a user sees, and checks of single values that raise them."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any


class InputError(ValueError):
    """Something the user gave (a key, a file, a tensor) is not allowed; nothing was started or changed."""


class DivergedError(RuntimeError):
    """The loss or a weight is no longer finite; the run is recorded as diverged and is not tried again."""


class RunNotCompletedError(RuntimeError):
    """Ends a job of a sweep whose run failed or diverged; details are recorded with the run, and were logged."""


def invalid(key: str, value: Any, allowed: str) -> InputError:
    """An InputError that names the key, its value and, as a noun phrase, what is allowed."""
    return InputError(f"{key} = {value!r}: expected {allowed}")


def require_flag(key: str, value: object) -> None:
    """Raise InputError unless the value is true or false; any other word would count as true."""
    if not isinstance(value, bool):
        raise invalid(key, value, "true or false")


def require_choice(key: str, value: object, choices: Sequence[str]) -> None:
    """Raise InputError unless the value is one of the choices."""
    if value not in choices:
        raise invalid(key, value, f"{', '.join(choices[:-1])} or {choices[-1]}")


def require_integer(key: str, value: object, least: int, *, optional: bool = False) -> None:
    """Raise InputError unless the value is an integer from `least` to 2^63 - 1, or None if it is optional."""
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**63:
        raise invalid(key, value, f"an integer of at least {least}" + (", or null" if optional else ""))


def require_name(key: str, value: object) -> None:
    """Raise InputError unless the value is a label: text of one line, or an integer, as YAML reads some labels."""
    if isinstance(value, int) and not isinstance(value, bool):
        return
    if not isinstance(value, str) or not value or value != value.strip() or not value.isprintable() or len(value) > 200:
        raise invalid(key, value, "a name of 1 to 200 printable characters, without spaces at its ends")


def require_keys(given: Iterable[str], key: str, allowed: Iterable[str], required: Iterable[str] = ()) -> None:
    """Raise InputError for a key of the group `key` that is missing or not allowed, with the most similar one."""
    names, given = sorted(allowed), list(map(str, given))
    if unknown := sorted(set(given) - set(names)):
        nearest = get_close_matches(unknown[0], names, n=1)
        hint = f"did you mean {nearest[0]}? " if nearest else ""
        raise InputError(f"{f'{key}.{unknown[0]}'.lstrip('.')}: unknown key; {hint}Keys are {', '.join(names)}")
    if missing := sorted(set(required) - set(given)):
        raise InputError(f"{f'{key}.{missing[0]}'.lstrip('.')}: missing; it cannot be deleted")
