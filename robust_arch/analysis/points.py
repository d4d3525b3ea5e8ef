"""Which architectures the test images of a group can tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

from robust_arch.analysis.networks import Estimate, Network
from robust_arch.statistics import percent_interval, resolution


@dataclass(frozen=True)
class Ranking:
    """What `n` images can rank among the points. All differences in percentage points.

    half_width: of a typical accuracy's 95% interval. pair: difference that tells two architectures apart which were
    named in advance. any_pair: the same for all pairs together (Bonferroni). spread: largest minus smallest accuracy.
    pairs: number of pairs. apart: pairs told apart. order_resolved: every neighbour in the order is told apart.
    """

    half_width: float
    pair: float
    any_pair: float
    spread: float
    pairs: int
    apart: int
    order_resolved: bool


def ranking(shown: Sequence[Network], n: int) -> Ranking:
    """What accuracies on `n` images say about the order of at least two points.

    The bar is that of a single run's test images; points of several runs must also have disjoint intervals.
    """
    mean = sum(network.robust.mean for network in shown) / len(shown)
    low, high = percent_interval(mean, n)
    # near 0 and 1 the z test's variance vanishes: its p is the value nearest to one half that the data allow
    p = min(max(0.5, low / 100), high / 100)
    ordered = sorted((network.robust for network in shown), key=lambda estimate: estimate.mean)
    pairs = list(combinations(ordered, 2))
    any_pair = 100 * resolution(n, p, confidence=1 - 0.05 / len(pairs))
    return Ranking(
        half_width=(high - low) / 2,
        pair=100 * resolution(n, p),
        any_pair=any_pair,
        spread=ordered[-1].mean - ordered[0].mean,
        pairs=len(pairs),
        apart=sum(_apart(lower, upper, any_pair) for lower, upper in pairs),
        order_resolved=all(_apart(*pair, any_pair) for pair in pairwise(ordered)),
    )


def _apart(lower: Estimate, upper: Estimate, bar: float) -> bool:
    repeated = lower.runs > 1 or upper.runs > 1
    return upper.mean - lower.mean > bar and not (repeated and lower.high >= upper.low)
