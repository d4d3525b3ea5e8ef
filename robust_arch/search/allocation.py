"""From shares of a budget to widths."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robust_arch.architectures import ArchSpec, ImageShape
from robust_arch.architectures.family import Family, get_family
from robust_arch.errors import InputError, invalid
from robust_arch.search.budget import Budget

_BISECTIONS = 60  # halvings: enough to bring any width below rounding of a float64


@dataclass(frozen=True)
class _Stages:
    """The cost of a family's stages at fixed depths, as a function of real-valued widths."""

    family: Family
    depths: tuple[int, ...]
    stem_width: int
    num_classes: int
    image_shape: ImageShape
    resource: str

    def terms(self, widths: Sequence[Any]) -> tuple[tuple[Any, ...], Any]:
        """Cost of each stage, and of what stands outside the stages."""
        terms = self.family.cost_terms(self.depths, widths, self.stem_width, self.num_classes, self.image_shape)
        if self.resource == "params":
            return terms.stage_params, terms.outside_params
        return terms.stage_macs, terms.outside_macs

    def solve(self, shares: Sequence[float], total: float) -> list[float]:
        """Real widths at which all costs add up to `total` and the stages stand in the ratio of `shares`."""

        def widths(stage_sum: float) -> list[float]:
            found: list[float] = []
            for stage, share in enumerate(shares):

                def excess(width: float, stage: int = stage, share: float = share) -> float:
                    rest = [width] * (len(shares) - stage)
                    return float(self.terms([*found, *rest])[0][stage]) - share * stage_sum

                found.append(_root(excess, 0.0, total))
            return found

        def surplus(stage_sum: float) -> float:
            return stage_sum + float(self.terms(widths(stage_sum))[1]) - total

        return widths(_root(surplus, 0.0, total))


def _root(rising: Callable[[float], float], low: float, high: float) -> float:
    """Where a rising function crosses 0 between `low` and `high`, by bisection; an end if it does not."""
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if rising(middle) < 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def check_shares(shares: Sequence[float], stages: int) -> tuple[float, ...]:
    """Shares as floats; raises InputError unless there is one a stage, all above 0, with sum 1."""
    values = tuple(float(share) for share in shares)
    if len(values) != stages or min(values) <= 0 or abs(sum(values) - 1) > 1e-6:
        raise invalid("shares", tuple(shares), f"{stages} numbers greater than 0 with sum 1")
    return values


def allocate(
    budget: Budget,
    shares: Sequence[float],
    depths: Sequence[int],
    width_step: int = 8,
    *,
    family: str = "wide_resnet",
    stem_width: int = 16,
    num_classes: int = 10,
    image_shape: ImageShape = (3, 32, 32),
) -> ArchSpec:
    """The architecture inside the budget whose stages divide it most nearly as `shares` say.

    Share i is the cost of stage i, its shortcut included, over the sum of the stages; stem and head stand outside.
    Cost is parameters if the budget sets them, else MACs. Widths are multiples of `width_step`. Among all such
    widths inside the budget the largest deviation of a share is smallest; ties go to the nearer total.

    Raises:
        InputError: if no widths on the grid meet the budget.
    """
    if not budget.resources:
        raise invalid("search.budget", str(budget), "params or macs")
    if isinstance(width_step, bool) or not isinstance(width_step, int) or width_step < 1:
        raise invalid("search.space.width_step", width_step, "an integer of at least 1")
    template = ArchSpec(family, tuple(depths), (1,) * len(tuple(depths)), stem_width=stem_width)
    shares = check_shares(shares, len(template.depths))
    resource = budget.resources[0]
    stages = _Stages(get_family(family), template.depths, stem_width, num_classes, image_shape, resource)
    low, high = (stages.solve(shares, bound) for bound in budget.bounds(resource))
    grid = _neighbours(low, high, width_step)
    best = _nearest(stages, grid, shares, budget)
    if best is None:
        raise InputError(
            f"search.budget = {budget}: no widths in steps of {width_step} at depths {template.depths} meet it "
            f"with shares {shares}; a smaller step or a larger tolerance may"
        )
    return ArchSpec(family, template.depths, best, stem_width=stem_width)


def _neighbours(low: Sequence[float], high: Sequence[float], step: int) -> list[np.ndarray]:
    """For each stage the grid widths from just below the smallest to just above the largest solution.

    Rounding one stage's width shifts what its neighbours may cost, hence two more steps on each side.
    """
    ranges = []
    for smallest, largest in zip(low, high, strict=True):
        first = max(1, math.floor(min(smallest, largest) / step) - 2)
        last = max(1, math.ceil(max(smallest, largest) / step) + 2)
        ranges.append(np.arange(first, last + 1, dtype=np.int64) * step)
    return [axis.ravel() for axis in np.meshgrid(*ranges, indexing="ij")]


def _nearest(
    stages: _Stages, widths: list[np.ndarray], shares: Sequence[float], budget: Budget
) -> tuple[int, ...] | None:
    """The widths inside the budget nearest to the shares, or None."""
    terms = stages.family.cost_terms(stages.depths, widths, stages.stem_width, stages.num_classes, stages.image_shape)
    params = sum(terms.stage_params) + terms.outside_params
    macs = sum(terms.stage_macs) + terms.outside_macs
    inside = np.flatnonzero(np.broadcast_to(budget.contains(params, macs), params.shape))
    if not len(inside):
        return None
    parts = np.stack(stages.terms(widths)[0])[:, inside]
    deviation = np.abs(parts / parts.sum(axis=0) - np.asarray(shares)[:, None]).max(axis=0)
    total = (params if stages.resource == "params" else macs)[inside]
    distance = np.abs(total / getattr(budget, stages.resource) - 1)
    best = inside[np.lexsort((distance, deviation))[0]]
    return tuple(int(axis[best]) for axis in widths)
