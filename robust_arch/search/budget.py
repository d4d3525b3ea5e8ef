"""A budget of parameters, of multiply-accumulates, or of both."""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from robust_arch.architectures import Cost
from robust_arch.errors import invalid

MAX_COST = 10**17  # sums of several such costs still fit into 64 bits


@dataclass(frozen=True)
class Budget:
    """What an architecture may cost: |cost / budget - 1| <= tolerance for each resource that is set.

    params: trainable numbers; macs: multiply-accumulates an image; None leaves a resource free.
    """

    params: int | None = None
    macs: int | None = None
    tolerance: float = 0.02

    def __post_init__(self) -> None:
        for key in ("params", "macs"):
            value = getattr(self, key)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value == value // 1:
                raise invalid(
                    f"search.budget.{key}", value, "an integer of at least 1, null, arch, or the name of a preset"
                )
            if value > MAX_COST:
                raise invalid(f"search.budget.{key}", value, f"at most {MAX_COST:,}")
            object.__setattr__(self, key, int(value))
        if not isinstance(self.tolerance, int | float) or not 0 <= self.tolerance < 1:
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
