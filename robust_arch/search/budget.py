"""Which costs a study admits: a budget of parameters or MACs, and bounds of the last stage's share."""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from robust_arch.architectures import ArchSpec, Cost, ImageShape, cost
from robust_arch.architectures.family import CostTerms
from robust_arch.errors import InputError, invalid
from robust_arch.search.grid import is_number

Task = tuple[int, ImageShape]
"""Number of classes, and (C, H, W) of the images."""
MAX_COST = 10**17  # sums of several such costs still fit into 64 bits


@dataclass(frozen=True)
class Budget:
    """What an architecture may cost: |cost / budget - 1| <= tolerance for each resource that is set.

    Attributes:
        params: trainable numbers; None leaves them free.
        macs: multiply-accumulates per image; None leaves them free.
        tolerance: largest deviation, as a part of the budget.
    """

    params: int | None = None
    macs: int | None = None
    tolerance: float = 0.02

    def __post_init__(self) -> None:
        for key in ("params", "macs"):
            value = getattr(self, key)
            if value is None:
                continue
            if not is_number(value) or not 1 <= value == value // 1:
                allowed = "an integer of at least 1, null, arch, or the name of a preset"
                raise invalid(f"search.budget.{key}", value, allowed)
            if value > MAX_COST:
                raise invalid(f"search.budget.{key}", value, f"at most {MAX_COST:,}")
            object.__setattr__(self, key, int(value))
        if not is_number(self.tolerance) or not 0 <= self.tolerance < 1:
            raise invalid("search.budget.tolerance", self.tolerance, "at least 0 and below 1")

    @property
    def resources(self) -> tuple[str, ...]:
        """The resources that are set, in the order params, macs."""
        return tuple(key for key in ("params", "macs") if getattr(self, key) is not None)

    @property
    def counted(self) -> str:
        """The resource in which shares are counted: parameters, or MACs where only they are set."""
        return "macs" if self.resources == ("macs",) else "params"

    def bounds(self, resource: str) -> tuple[int, int]:
        """Smallest and largest cost inside, exactly."""
        target, tolerance = Fraction(getattr(self, resource)), Fraction(str(self.tolerance))
        return math.ceil(target * (1 - tolerance)), math.floor(target * (1 + tolerance))

    def contains(self, params: Any, macs: Any) -> Any:
        """Whether these costs are inside; integers, or int64 arrays for an array of booleans."""
        inside: Any = True
        for resource, value in (("params", params), ("macs", macs)):
            if getattr(self, resource) is not None:
                low, high = self.bounds(resource)
                inside = inside & (low <= value) & (value <= high)
        return inside

    def reason(self, cost: Cost) -> str:
        """How far outside a cost is, like "macs 12.3% over"; empty if inside."""
        parts = []
        for resource in self.resources:
            value, target = getattr(cost, resource), getattr(self, resource)
            low, high = self.bounds(resource)
            if not low <= value <= high:
                side = "over" if value > target else "under"
                parts.append(f"{resource} {abs(value / target - 1):.1%} {side}")
        return ", ".join(parts)

    def __str__(self) -> str:
        units = {"params": "parameters", "macs": "MACs"}
        parts = [f"{getattr(self, resource):,} {units[resource]}" for resource in self.resources]
        return f"{' and '.join(parts)} ±{100 * self.tolerance:g}%" if parts else "no budget"


def check_last_share(bounds: Any) -> tuple[float, float]:
    """Bounds as floats; raises InputError unless they are two numbers of which the first is smaller, in [0, 1]."""
    allowed = "[low, high] with 0 <= low < high <= 1, or null"
    is_pair = isinstance(bounds, list | tuple) and len(bounds) == 2 and all(map(is_number, bounds))
    if not is_pair or not 0 <= bounds[0] < bounds[1] <= 1:
        raise invalid("search.space.last_share", bounds, allowed)
    return float(bounds[0]), float(bounds[1])


def require_countable(largest: ArchSpec, task: Task) -> None:
    """Raise InputError where costs up to those of `largest` may not fit into 64 bits, in which many are counted."""
    found = cost(largest, *task)  # in Python's integers, which do not overflow
    # twice: a stage without a projection costs less than a narrower one with it, which adds less than the rest
    if (most := 2 * max(found.params, found.macs)) >= 2**63:
        raise InputError(
            f"search.space: depths {largest.depths_text}, widths {largest.widths_text}, stem {largest.stem_width}: "
            f"costs of up to {most:.1e} are too large to be counted"
        )


@dataclass(frozen=True)
class Limits:
    """Which costs a study admits.

    Attributes:
        budget: of the whole network.
        task: that the costs are of.
        last_share: bounds of the last stage's part of the stages' sum, both included; None for no bounds.
    """

    budget: Budget
    task: Task
    last_share: tuple[float, float] | None = None

    def judge(self, terms: CostTerms) -> tuple[np.ndarray, np.ndarray]:
        """Whether each of many costs is inside, and by how much the worst limit is missed: (M,) booleans, (M,) floats.

        A budget is missed by a part of it, the last stage's share by a difference of shares.
        """
        shape = np.shape(terms.params)
        inside = np.broadcast_to(self.budget.contains(terms.params, terms.macs), shape)
        miss = np.zeros(shape)
        for resource in self.budget.resources:
            miss = np.maximum(miss, np.abs(getattr(terms, resource) / getattr(self.budget, resource) - 1))
        if self.last_share is not None:
            share, (low, high) = terms.last_share(self.budget.counted), self.last_share
            inside = inside & (low <= share) & (share <= high)
            miss = np.maximum(miss, np.maximum(low - share, share - high))
        return inside, miss

    def reason(self, spec: ArchSpec) -> str:
        """Each limit that it misses, like "macs 12.3% over, last stage 62.0% of params, above 50%"; else empty."""
        found = cost(spec, *self.task)
        reasons = [self.budget.reason(found)]
        if self.last_share is not None:
            resource = self.budget.counted
            share, (low, high) = found.shares(resource)[-1], self.last_share
            side = f"below {100 * low:g}%" if share < low else f"above {100 * high:g}%" if share > high else ""
            reasons.append(side and f"last stage {share:.1%} of {resource}, {side}")
        return ", ".join(filter(None, reasons))
