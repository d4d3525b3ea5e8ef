"""One point an architecture: robust accuracy with its interval, and which points the data can tell apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from statistics import median, stdev
from typing import Protocol

import pandas as pd

from robust_arch.analysis.groups import Group
from robust_arch.statistics import mean_interval, resolution, rounding_deviation, wilson_interval


@dataclass(frozen=True)
class Point:
    """Worst-case accuracy of one architecture in percent with a 95% interval, and where it stands on the axes.

    From one run the interval is Wilson's over the test images, from several Student's t over the runs, see
    `accuracy_interval`.
    sd: standard deviation over the runs, None for one. params: trainable parameters. last_share: last stage's share of
    them in percent, None where unrecorded.
    """

    arch: str
    runs: int
    accuracy: float
    low: float
    high: float
    params: int
    last_share: float | None
    sd: float | None = None


class Interval(Protocol):
    """What lies between two bounds."""

    @property
    def low(self) -> float:
        """The lower bound."""

    @property
    def high(self) -> float:
        """The upper bound."""


@dataclass(frozen=True)
class Verdict:
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


def percent_interval(accuracy: float, n: int) -> tuple[float, float]:
    """Wilson's 95% interval in percent of an accuracy in percent of `n` images."""
    low, high = wilson_interval(round(accuracy / 100 * n), n)
    return 100 * low, 100 * high


def accuracy_interval(accuracies: Sequence[float], n: int) -> tuple[float, float, float]:
    """Mean and 95% interval in percent of runs' accuracies, each of `n` images: Wilson's for one run, else Student's t.

    The t interval rests on a standard deviation of at least (100 / n) / sqrt(12) points, that of rounding to whole
    images (a uniform error as wide as one of `n` images): two runs that agree by chance are no certainty. It is cut to
    [0, 100].
    """
    mean, low, high = mean_interval(accuracies, least_deviation=rounding_deviation(100 / n))
    if low is None or high is None:
        low, high = percent_interval(mean, n)
    return mean, max(low, 0.0), min(high, 100.0)


def points(group: Group, stage_shares: Mapping[str, tuple[float, ...]]) -> list[Point]:
    """One point an architecture, in the order of the rows. stage_shares: run_id to shares in [0, 1]."""
    return [
        _point(str(arch), rows, group.n_test, stage_shares) for arch, rows in group.rows.groupby("arch", sort=False)
    ]


def half_width(shown: Iterable[Interval]) -> float:
    """Half the width of 95% intervals in percentage points, the median."""
    return median((each.high - each.low) / 2 for each in shown)


def verdict(shown: list[Point], n: int) -> Verdict:
    """What accuracies on `n` images say about the order of at least two points.

    The bar is that of a single run's test images; points of several runs must also have disjoint intervals.
    """
    mean = sum(point.accuracy for point in shown) / len(shown)
    low, high = percent_interval(mean, n)
    # near 0 and 1 the z test's variance vanishes: its p is the value nearest to one half that the data allow
    p = min(max(0.5, low / 100), high / 100)
    ordered = sorted(shown, key=lambda point: point.accuracy)
    pairs = list(combinations(ordered, 2))
    any_pair = 100 * resolution(n, p, confidence=1 - 0.05 / len(pairs))
    return Verdict(
        half_width=(high - low) / 2,
        pair=100 * resolution(n, p),
        any_pair=any_pair,
        spread=ordered[-1].accuracy - ordered[0].accuracy,
        pairs=len(pairs),
        apart=sum(_apart(lower, upper, any_pair) for lower, upper in pairs),
        order_resolved=all(_apart(*pair, any_pair) for pair in pairwise(ordered)),
    )


def _apart(lower: Point, upper: Point, bar: float) -> bool:
    repeated = lower.runs > 1 or upper.runs > 1
    return upper.accuracy - lower.accuracy > bar and not (repeated and lower.high >= upper.low)


def _point(arch: str, rows: pd.DataFrame, n: int, stage_shares: Mapping[str, tuple[float, ...]]) -> Point:
    values = [float(value) for value in rows["worst_case_acc"]]
    mean, low, high = accuracy_interval(values, n)
    shares = stage_shares.get(str(rows["run_id"].iloc[0]))
    return Point(
        arch=arch,
        runs=len(values),
        accuracy=mean,
        low=low,
        high=high,
        sd=stdev(values) if len(values) > 1 else None,
        params=int(rows["params"].iloc[0]),
        last_share=100 * shares[-1] if shares else None,
    )
