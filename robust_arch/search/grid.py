"""What a stage may be: lists of choices, ranges of them, and stages that move together."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robust_arch.errors import InputError, invalid

_MAX_POINTS = 1_000_000_000  # of a grid: some ten minutes of filtering
_MAX_CHOICES = 100_000  # of one stage
MAX_VALUE = 2**24  # of a depth or a width: far beyond what fits into memory, and inside 32 bits


def stage_choices(key: str, stages: Any, step: int = 1) -> tuple[tuple[int, ...], ...]:
    """For each stage a tuple of distinct integers of at least 1, from a list or from {min, max, step} with both ends.

    step: of a range that has none.
    """
    allowed = "for each stage a list of integers, like [[1,2],[1,2],[1]], or {min, max, step}"
    if isinstance(stages, str | Mapping) or not hasattr(stages, "__iter__"):
        raise invalid(key, stages, allowed)
    stages = [_range(key, stage, step) if isinstance(stage, Mapping) else stage for stage in stages]
    if not all(isinstance(stage, list | tuple) for stage in stages):
        raise invalid(key, stages, allowed)
    for stage in stages:
        if not stage or not all(is_count(value) for value in stage) or len(set(stage)) != len(stage):
            raise invalid(key, [list(each) for each in stages], "distinct integers of at least 1 for each stage")
        if max(stage) > MAX_VALUE:
            raise invalid(key, max(stage), f"integers of at most {MAX_VALUE:,}")
    return tuple(tuple(stage) for stage in stages)


def _range(key: str, stage: Mapping[Any, Any], step: int) -> tuple[int, ...]:
    allowed = "{min: 16, max: 640, step: 16} with integers of at least 1, whose steps lead from min to max exactly"
    if not {"min", "max"} <= set(stage) <= {"min", "max", "step"}:
        raise invalid(key, dict(stage), allowed)
    low, high, step = stage["min"], stage["max"], stage.get("step", step)
    if not all(is_count(value) for value in (low, high, step)) or high < low or (high - low) % step:
        raise invalid(key, {"min": low, "max": high, "step": step}, allowed)
    if high > MAX_VALUE:
        raise invalid(key, dict(stage), f"integers of at most {MAX_VALUE:,}")
    if (high - low) // step >= _MAX_CHOICES:
        raise invalid(key, dict(stage), f"at most {_MAX_CHOICES:,} choices for a stage")
    return tuple(range(low, high + 1, step))


def is_count(value: object, least: int = 1) -> bool:
    """Whether a value is an integer of at least `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_number(value: object) -> bool:
    """Whether a value is an integer or a floating-point number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_value(key: str, value: int) -> int:
    """A depth, a width or a step of one; raises InputError unless it is an integer from 1 to the largest allowed."""
    if not is_count(value):
        raise invalid(key, value, "an integer of at least 1")
    if value > MAX_VALUE:
        raise invalid(key, value, f"an integer of at most {MAX_VALUE:,}")
    return value


@dataclass(frozen=True, kw_only=True)
class Tie:
    """Groups of stages, counted from 1, whose choices move together by their position in the stages' lists.

    Stages with equal lists stay equal; with proportional ones they share one widening factor.
    """

    depths: tuple[tuple[int, ...], ...] = ()
    widths: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        for name in ("depths", "widths"):
            groups = () if getattr(self, name) is None else getattr(self, name)
            key, allowed = f"search.space.tie.{name}", "groups of stages counted from 1, each in one, like [[1,2,3]]"
            if not isinstance(groups, list | tuple) or not all(isinstance(g, list | tuple) and g for g in groups):
                raise invalid(key, groups, allowed)
            members = [stage for group in groups for stage in group]
            if not all(map(is_count, members)) or len(set(members)) != len(members):
                raise invalid(key, groups, allowed)
            object.__setattr__(self, name, tuple(tuple(group) for group in groups))

    def dimensions(self, name: str, lists: Sequence[Sequence[int]]) -> list[int]:
        """For each stage's list the first stage, counted from 0, that moves with it.

        Raises:
            InputError: for a stage that does not exist, or lists of one group that differ in length.
        """
        leaders = list(range(len(lists)))
        for group in getattr(self, name):
            key = f"search.space.tie.{name}"
            if max(group) > len(lists):
                raise invalid(key, list(group), f"stages from 1 to {len(lists)}")
            lengths = [len(lists[stage - 1]) for stage in group]
            if len(set(lengths)) > 1:
                raise invalid(key, list(group), f"stages with equally many choices; these have {lengths}")
            for stage in group:
                leaders[stage - 1] = min(group) - 1
        return leaders


@dataclass(frozen=True)
class Grid:
    """All combinations of lists, of which some move together.

    leaders: for each list the position of the first one that moves with it, its own if it moves alone.
    """

    lists: tuple[tuple[int, ...], ...]
    leaders: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self) > _MAX_POINTS:
            raise InputError(
                f"search.space: {len(self):,} points, at most {_MAX_POINTS:,}; a larger step of a range or a tie "
                "(search.space.tie) makes them fewer"
            )

    def __len__(self) -> int:
        return math.prod(len(self.lists[leader]) for leader in set(self.leaders))

    def points(self, start: int, stop: int) -> np.ndarray:
        """The points from `start` to before `stop`, the last list moving fastest: (lists, points) int64."""
        moving = sorted(set(self.leaders))
        shape = tuple(len(self.lists[leader]) for leader in moving)
        positions = dict(zip(moving, np.unravel_index(np.arange(start, stop), shape), strict=True))
        choices = zip(self.lists, self.leaders, strict=True)
        return np.stack([np.asarray(values, dtype=np.int64)[positions[leader]] for values, leader in choices])
