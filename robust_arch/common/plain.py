"""Checks of plain values from files of unknown origin."""

import math
import reprlib

_LARGEST = 2**63  # integers: sizes and seeds become int64
_LONGEST = 4096  # characters of a string, such as a path
_DEEPEST, _MOST = 32, 10_000  # levels and values of a configuration


def is_plain(value: object) -> bool:
    """Whether it is None, a boolean, an int64, a finite float, or a printable string without an interpolation.

    Control characters, lone surrogates and integers of thousands of digits cannot be written or shown.
    """
    if isinstance(value, str):
        return len(value) <= _LONGEST and value.isprintable() and "${" not in value
    if isinstance(value, int):
        return -_LARGEST <= value < _LARGEST
    return value is None or (isinstance(value, float) and math.isfinite(value))


def is_bounded(content: object) -> bool:
    """Whether nested groups and lists are small; a YAML alias can repeat a group inside itself or a billion times."""
    waiting, seen = [(content, 0)], 0
    while waiting:
        node, depth = waiting.pop()
        values = list(node.values() if isinstance(node, dict) else node) if isinstance(node, dict | list) else []
        seen += len(values)
        if depth > _DEEPEST or seen > _MOST:
            return False
        waiting += [(value, depth + 1) for value in values]
    return True


def shown(value: object) -> str:
    """`value` for an error message, cut short."""
    try:
        return reprlib.repr(value)
    except ValueError:  # an integer of thousands of digits
        return f"<{type(value).__name__}>"
