"""A part of a plan's architectures that fills the space evenly."""

from dataclasses import dataclass, replace

import numpy as np

from robust_arch.architectures import ImageShape
from robust_arch.architectures.cost import cost_terms
from robust_arch.errors import invalid, require_integer
from robust_arch.search.candidates import Candidates, Specs
from robust_arch.search.grid import is_count

BINS = 4  # quartiles of each coordinate; their combinations are the strata
_CHUNK = 250_000  # members whose cost is computed at once
_POOL = 5_000  # of a stratum: this many at random cover it as well as all of them, and their distances take no time


@dataclass(frozen=True)
class Sample:
    """At most `count` members, None for all; the same seed draws the same ones."""

    count: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count is not None and not is_count(self.count):
            raise invalid("search.sample", self.count, "an integer of at least 1, or null for all")
        require_integer("search.sample_seed", self.seed, 0)

    def of(self, members: Candidates, num_classes: int, image_shape: ImageShape, resource: str) -> Candidates:
        """The chosen members, in the order of the space.

        Strata are quartiles of the last stage's share of `resource` times quartiles of depth against width. Every
        stratum is drawn from once before any is drawn from twice; within that rule the member farthest from all chosen
        ones (in ranks) comes next, so that the sample covers the space.
        """
        specs = members.specs
        if self.count is None or len(specs) <= self.count or not isinstance(specs, Specs):
            return members
        ranks = coordinates(specs, num_classes, image_shape, resource)
        rng = np.random.default_rng(self.seed)
        groups = strata(ranks)
        pool = _pool(groups, max(_POOL, self.count), rng)
        chosen = pool[spread(ranks[pool], groups[pool], self.count, rng)]
        return replace(members, specs=Specs(specs.template, specs.points[chosen]), not_sampled=len(specs) - self.count)


def coordinates(specs: Specs, num_classes: int, image_shape: ImageShape, resource: str) -> np.ndarray:
    """Ranks, in [0, 1], of the last stage's share and of log(sum of depths / sum of widths): (M, 2)."""
    from scipy.stats import rankdata

    stages = len(specs.template.depths)
    values = np.empty((2, len(specs)))
    for start in range(0, len(specs), _CHUNK):
        columns = specs.points[start : start + _CHUNK].T.astype(np.int64)
        depths, widths = list(columns[:stages]), list(columns[stages:])
        terms = cost_terms(specs.template, depths, widths, num_classes, image_shape)
        values[0, start : start + _CHUNK] = terms.last_share(resource)
        values[1, start : start + _CHUNK] = np.log(sum(depths) / sum(widths))
    return np.asarray((rankdata(values, axis=1).T - 1) / (len(specs) - 1))


def strata(ranks: np.ndarray) -> np.ndarray:
    """The stratum of each member, (M,), from its ranks, (M, 2)."""
    bins = np.minimum((ranks * BINS).astype(np.int64), BINS - 1)
    return np.asarray(bins[:, 0] * BINS + bins[:, 1])


def _pool(groups: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """Positions, ascending, of at most `most` members of each group, drawn at random where it has more."""
    kept = []
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        kept.append(members if len(members) <= most else rng.choice(members, most, replace=False))
    return np.sort(np.concatenate(kept))


def spread(points: np.ndarray, groups: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` positions, ascending, of points (M, 2) that lie far apart, evenly many of each group (M,)."""
    # larger than any true distance: without a chosen point, the first is drawn at random
    distance = 10 + rng.random(len(points))
    _, group = np.unique(groups, return_inverse=True)
    left, picked = np.bincount(group), np.zeros(group.max() + 1, dtype=np.int64)
    chosen = []
    for _ in range(count):
        due = (left > 0) & (picked == picked[left > 0].min())
        best = int(np.argmax(np.where(due[group], distance, -1.0)))
        chosen.append(best)
        picked[group[best]] += 1
        left[group[best]] -= 1
        distance = np.minimum(distance, np.hypot(*(points - points[best]).T))
        distance[best] = -2.0  # never again
    return np.sort(np.array(chosen))
