"""A number with the bounds of its interval."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Bounded:
    """A number with the bounds of its 95% interval."""

    value: float
    low: float
    high: float
