"""Which costs a study admits: the budget, and bounds of the last stage's share of it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from robust_arch.architectures import ArchSpec, Cost, ImageShape, cost
from robust_arch.architectures.family import CostTerms
from robust_arch.errors import InputError, invalid
from robust_arch.search.budget import Budget


def check_last_share(bounds: Any) -> tuple[float, float]:
    """Bounds as floats; raises InputError unless they are two numbers of which the first is smaller, in [0, 1]."""
    allowed = "[low, high] with 0 <= low < high <= 1, or null"
    if not isinstance(bounds, list | tuple) or len(bounds) != 2:
        raise invalid("search.space.last_share", bounds, allowed)
    if not all(isinstance(bound, int | float) and not isinstance(bound, bool) for bound in bounds):
        raise invalid("search.space.last_share", bounds, allowed)
    low, high = (float(bound) for bound in bounds)
    if not 0 <= low < high <= 1:
        raise invalid("search.space.last_share", bounds, allowed)
    return low, high


def require_countable(largest: ArchSpec, num_classes: int, image_shape: ImageShape) -> None:
    """Raise InputError where costs up to those of `largest` may not fit into 64 bits, in which many are counted."""
    found = cost(largest, num_classes, image_shape)  # of Python's integers, which have no end
    # twice: a stage without a projection costs less than a narrower one with it, which adds less than the rest
    if (most := 2 * max(found.params, found.macs)) >= 2**63:
        widths = "-".join(map(str, largest.widths))
        raise InputError(
            f"search.space: depths {'-'.join(map(str, largest.depths))}, widths {widths}, stem {largest.stem_width}: "
            f"costs of up to {most:.1e} are too large to be counted"
        )


@dataclass(frozen=True)
class Limits:
    """budget: of the whole network. last_share: bounds of the last stage's part of the stages' sum, both included."""

    budget: Budget
    last_share: tuple[float, float] | None = None

    def judge(self, terms: CostTerms) -> tuple[np.ndarray, np.ndarray]:
        """Whether each of many costs is inside, and by how much the worst limit is missed: (M,) booleans, (M,) floats.

        A budget is missed by a part of it, the last stage's share by a difference of shares.
        """
        costs: dict[str, Any] = {
            "params": sum(terms.stage_params) + terms.outside_params,
            "macs": sum(terms.stage_macs) + terms.outside_macs,
        }
        shape = np.shape(costs["params"])
        inside = np.broadcast_to(self.budget.contains(**costs), shape)
        miss = np.zeros(shape)
        for resource in self.budget.resources:
            miss = np.maximum(miss, np.abs(costs[resource] / getattr(self.budget, resource) - 1))
        if self.last_share is not None:
            share, (low, high) = last_shares(terms, self.budget.counted), self.last_share
            inside = inside & (low <= share) & (share <= high)
            miss = np.maximum(miss, np.maximum(low - share, share - high))
        return inside, miss

    def reason(self, cost: Cost) -> str:
        """Each limit that a cost misses, like "macs 12.3% over, last stage 62.0% of params, above 50%"; else empty."""
        reasons = [self.budget.reason(cost)]
        if self.last_share is not None:
            resource = self.budget.counted
            share, (low, high) = cost.shares(resource)[-1], self.last_share
            side = f"below {100 * low:g}%" if share < low else f"above {100 * high:g}%" if share > high else ""
            reasons.append(side and f"last stage {share:.1%} of {resource}, {side}")
        return ", ".join(filter(None, reasons))


def last_shares(terms: CostTerms, resource: str) -> np.ndarray:
    """The last stage's part of the stages' sum of a resource, for arrays of costs."""
    parts = terms.stage_params if resource == "params" else terms.stage_macs
    return np.asarray(parts[-1] / sum(parts))
