"""Intervals at 95% confidence for shares of test images, means over seeds and rank correlations.

scipy is imported inside the functions, so that commands that compute no statistics start without it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from statistics import NormalDist, fmean, stdev
from typing import Any, NamedTuple

import numpy as np

from robust_arch.errors import invalid

_UPPER = 0.975  # the probability below the upper bound of a two-sided 95% interval
_Z = NormalDist().inv_cdf(_UPPER)


class MeanInterval(NamedTuple):
    """A mean with the bounds of its interval, in the unit of the values; no bounds from fewer than two values."""

    mean: float
    low: float | None
    high: float | None


class RankCorrelation(NamedTuple):
    """Kendall's tau-b of n pairs, in [-1, 1], with the bounds of its interval; None where undefined."""

    n: int
    tau: float | None
    low: float | None
    high: float | None


class PairedComparison(NamedTuple):
    """Two classifiers on the same examples.

    Attributes:
        n: number of examples.
        only_first: examples that only the first classifies correctly.
        only_second: examples that only the second classifies correctly.
        difference: share of correct examples of the first minus that of the second, in [-1, 1].
        low: lower bound of the difference's interval.
        high: upper bound.
        p_value: of McNemar's exact test that both are correct equally often.
    """

    n: int
    only_first: int
    only_second: int
    difference: float
    low: float
    high: float
    p_value: float


@cache  # a report needs the same few shares many times, at a quarter of a millisecond each
def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """Score interval of a share in [0, 1] from `successes` of `n` (Wilson 1927, no continuity correction).

    Raises:
        InputError: unless 0 <= successes <= n and n >= 1.
    """
    from scipy.stats import binomtest

    if n < 1:
        raise invalid("n", n, "at least 1")
    if not 0 <= successes <= n:
        raise invalid("successes", successes, f"between 0 and n = {n}")
    low, high = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    return float(low), float(high)


def recorded_share(count: int, n: int) -> dict[str, Any]:
    """A share as records hold it: count, n, percent of n and its interval in percent, which is [0, 100] for n = 0."""
    low, high = wilson_interval(count, n) if n else (0.0, 1.0)
    return {"count": count, "n": n, "percent": 100 * count / n if n else 0.0, "interval": [100 * low, 100 * high]}


def rounding_deviation(step: float) -> float:
    """Standard deviation of rounding to multiples of `step`: an error uniform over one step."""
    return step / math.sqrt(12)


def mean_interval(values: Sequence[float], *, least_deviation: float = 0.0) -> MeanInterval:
    """Mean over independent runs (seeds) with Student's t interval, in the unit of `values`.

    Args:
        values: one number per run.
        least_deviation: the smallest standard deviation that the interval may rest on.

    Raises:
        InputError: for no values.
    """
    from scipy.special import stdtrit

    if not len(values):
        raise invalid("values", values, "at least one value")
    mean = fmean(values)
    if len(values) < 2:
        return MeanInterval(mean, None, None)
    half = float(stdtrit(len(values) - 1, _UPPER)) * max(stdev(values), least_deviation) / math.sqrt(len(values))
    return MeanInterval(mean, mean - half, mean + half)


def percent_interval(accuracy: float, n: int) -> tuple[float, float]:
    """Wilson's interval in percent of an accuracy in percent of `n` images."""
    low, high = wilson_interval(round(accuracy / 100 * n), n)
    return 100 * low, 100 * high


def accuracy_interval(accuracies: Sequence[float], n: int) -> tuple[float, float, float]:
    """Mean and interval in percent of runs' accuracies on `n` images: Wilson's for one run, else Student's t.

    The t interval rests on a standard deviation of at least (100 / n) / sqrt(12) points, that of rounding to whole
    images: runs that agree by chance do not make the mean certain. It is cut to [0, 100].
    """
    mean, low, high = mean_interval(accuracies, least_deviation=rounding_deviation(100 / n))
    if low is None or high is None:
        low, high = percent_interval(mean, n)
    return mean, max(low, 0.0), min(high, 100.0)


def compare_paired(first: np.ndarray, second: np.ndarray) -> PairedComparison:
    """McNemar's exact test (McNemar 1947) of two (n,) arrays of booleans, with the interval of Agresti and Min (2005).

    The interval is Wald's after adding one half to each cell of the 2x2 table.

    Raises:
        InputError: for arrays of different lengths, or empty ones.
    """
    from scipy.stats import binomtest

    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise invalid("examples", (first.shape, second.shape), "the same examples for both, at least one")
    n = len(first)
    b, c = int((first & ~second).sum()), int((second & ~first).sum())
    centre, half = (b - c) / (n + 2), _Z * math.sqrt(b + c + 1 - (b - c) ** 2 / (n + 2)) / (n + 2)
    p_value = float(binomtest(b, b + c).pvalue) if b + c else 1.0
    return PairedComparison(n, b, c, (b - c) / n, max(centre - half, -1.0), min(centre + half, 1.0), p_value)


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> RankCorrelation:
    """Kendall's tau-b (Kendall 1945) of pairs, with the interval of Fieller, Hartley and Pearson (1957).

    The interval is tanh(atanh(tau) -+ z sqrt(0.437 / (n - 4))), found on pairs of normal variables with |tau| below
    about 0.8: approximate. tau is undefined where one side is constant, the interval for n <= 4 or |tau| = 1.

    Raises:
        InputError: for sequences of different lengths, or a value that is not finite.
    """
    from scipy.stats import kendalltau

    n = len(first)
    if n != len(second) or not np.isfinite([*first, *second]).all():
        raise invalid("pairs", (n, len(second)), "as many finite values on the one side as on the other")
    tau = float(kendalltau(first, second).statistic) if n > 1 else math.nan
    if math.isnan(tau):
        return RankCorrelation(n, None, None, None)
    if n <= 4 or math.isclose(abs(tau), 1):
        return RankCorrelation(n, tau, None, None)
    half = _Z * math.sqrt(0.437 / (n - 4))
    return RankCorrelation(n, tau, math.tanh(math.atanh(tau) - half), math.tanh(math.atanh(tau) + half))
