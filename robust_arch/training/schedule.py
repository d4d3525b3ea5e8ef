"""Learning-rate schedules: a factor on the base rate as a function of training time in epochs."""

import math
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Protocol

import numpy as np

from robust_arch.errors import invalid

_POINTS = "pairs of a fraction of all epochs, rising in [0, 1], and a factor of at least 0, like [[0.4, 1], [1, 0]]"


class Schedule(Protocol):
    """A schedule; `epoch` counts from 0 and has a fractional part inside an epoch."""

    def __call__(self, epoch: float, epochs: int) -> float:
        """The factor on the base learning rate at time `epoch` of `epochs`."""


@dataclass(frozen=True, kw_only=True)
class Steps:
    """A multiplication by `factor` at each milestone; a milestone is a fraction of all epochs.

    With milestones 0.75 and 0.9 and factor 0.1 it is the rule of Huang et al. 2021: lr x 0.1 from epoch e >= 0.75 E and
    x 0.01 from e >= 0.9 E, constant within an epoch.
    """

    milestones: tuple[float, ...]
    factor: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "milestones", tuple(self.milestones))
        if not all(0 < milestone < 1 for milestone in self.milestones):
            raise invalid("recipe.schedule.milestones", self.milestones, "fractions of all epochs, in (0, 1)")
        if not self.factor > 0:
            raise invalid("recipe.schedule.factor", self.factor, "a number greater than 0")

    def __call__(self, epoch: float, epochs: int) -> float:
        """Factor ** (milestones passed by the start of this epoch)."""
        passed = sum(int(epoch) >= Fraction(str(milestone)) * epochs for milestone in self.milestones)
        return float(self.factor**passed)


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """(1 + cos(pi t / epochs)) / 2; t is the time in epochs, or with `by_epochs` the number of complete epochs.

    `lag` is subtracted from t. By epochs with a lag of 1 it is the rule lr / 2 (1 + cos(pi (e - 1) / E)) of the
    published code of Huang et al. 2021 for 500k images, whose e counts from 0: e = 0 and e = 2 have the same rate.
    """

    by_epochs: bool = False
    lag: int = 0

    def __post_init__(self) -> None:
        if type(self.lag) is not int or self.lag < 0:
            raise invalid("recipe.schedule.lag", self.lag, "a whole number of epochs, at least 0")

    def __call__(self, epoch: float, epochs: int) -> float:
        """1 at t = 0, approaching 0 at the end."""
        done = int(epoch) if self.by_epochs else epoch
        return (1 + math.cos(math.pi * (done - self.lag) / epochs)) / 2


@dataclass(frozen=True, kw_only=True)
class OneCycle:
    """Linear from 0 to 1 until `peak`, a fraction of all epochs, then linear to 0 (Smith and Topin 2019)."""

    peak: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.peak < 1:
            raise invalid("recipe.schedule.peak", self.peak, "a fraction of all epochs, in (0, 1)")

    def __call__(self, epoch: float, epochs: int) -> float:
        """Piecewise linear."""
        done = epoch / epochs
        return done / self.peak if done < self.peak else (1 - done) / (1 - self.peak)


@dataclass(frozen=True, kw_only=True)
class PiecewiseLinear:
    """Linear between points (fraction of all epochs, factor), constant before the first and after the last.

    [[0, 0], [0.4, 1], [1, 0]] is the cyclic schedule of Wong et al. 2020, [[0, 1], [0.333, 1], [0.667, 0.1], [1, 0.01]]
    the linear one of Rice et al. 2020.
    """

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        points = self.points if isinstance(self.points, list | tuple) else ()
        if not points or not all(map(_is_point, points)) or not all(a[0] < b[0] for a, b in pairwise(points)):
            raise invalid("recipe.schedule.points", self.points, _POINTS)
        object.__setattr__(self, "points", tuple(map(tuple, points)))

    def __call__(self, epoch: float, epochs: int) -> float:
        """Interpolated."""
        times, factors = zip(*self.points, strict=True)
        return float(np.interp(epoch / epochs, times, factors))


def _is_point(point: object) -> bool:
    if not isinstance(point, list | tuple) or len(point) != 2:
        return False
    numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in point)
    return numbers and 0 <= point[0] <= 1 and 0 <= point[1] < math.inf


@dataclass(frozen=True, kw_only=True)
class Warmup:
    """Schedule `then`, times a factor that rises linearly from `start` to 1 in the first `warmup_epochs` epochs."""

    warmup_epochs: float
    then: Schedule
    start: float = 0.0

    def __post_init__(self) -> None:
        if not self.warmup_epochs > 0:
            raise invalid("recipe.schedule.warmup_epochs", self.warmup_epochs, "a number greater than 0")
        if not 0 <= self.start <= 1:
            raise invalid("recipe.schedule.start", self.start, "a number in [0, 1]")

    def __call__(self, epoch: float, epochs: int) -> float:
        """The product."""
        done = min(1.0, epoch / self.warmup_epochs)
        return (self.start + (1 - self.start) * done) * self.then(epoch, epochs)
