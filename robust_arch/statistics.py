"""Intervals for what is measured here: shares of test images, means over seeds, orders of architectures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from statistics import NormalDist, fmean, stdev
from typing import NamedTuple

import numpy as np

from robust_arch.errors import invalid


class MeanInterval(NamedTuple):
    """A mean with the bounds of its interval, in the unit of the values; no bounds from fewer than two values."""

    mean: float
    low: float | None
    high: float | None


class RankCorrelation(NamedTuple):
    """Kendall's tau-b of n pairs, in [-1, 1], with the bounds of its interval; what is not defined is None."""

    n: int
    tau: float | None
    low: float | None
    high: float | None


class PairedComparison(NamedTuple):
    """Two classifiers on the same n examples.

    only_first, only_second: examples that only the one is right on. difference: share of the first minus share of the
    second, in [-1, 1], with its interval. p_value: of McNemar's exact test that both are right equally often.
    """

    n: int
    only_first: int
    only_second: int
    difference: float
    low: float
    high: float
    p_value: float


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of a share in [0, 1] from `successes` of `n` (Wilson 1927, no continuity correction).

    Raises:
        InputError: unless 0 <= successes <= n, n >= 1 and 0 < confidence < 1.
    """
    if n < 1:
        raise invalid("n", n, "at least 1")
    if not 0 <= successes <= n:
        raise invalid("successes", successes, f"between 0 and n = {n}")
    z = normal_quantile(confidence)
    share = successes / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # at 0 and n the bound is the share itself; rounding would put it on the wrong side
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == n else centre + half)


def rounding_deviation(step: float) -> float:
    """Standard deviation of rounding to multiples of `step`: of an error uniform over one step."""
    return step / math.sqrt(12)


def mean_interval(values: Sequence[float], confidence: float = 0.95, *, least_deviation: float = 0.0) -> MeanInterval:
    """Mean over independent runs (seeds) with Student's t interval, in the unit of `values`.

    least_deviation: what their standard deviation is not taken to be below.

    Raises:
        InputError: for no values.
    """
    if not len(values):
        raise invalid("values", values, "at least one value")
    mean = fmean(values)
    if len(values) < 2:
        return MeanInterval(mean, None, None)
    half = t_quantile(len(values) - 1, confidence) * max(stdev(values), least_deviation) / math.sqrt(len(values))
    return MeanInterval(mean, mean - half, mean + half)


def compare_paired(first: np.ndarray, second: np.ndarray, confidence: float = 0.95) -> PairedComparison:
    """McNemar's exact test (McNemar 1947) of two (n,) arrays of booleans, with the interval of Agresti and Min (2005).

    The interval is Wald's after adding one half to each cell of the 2x2 table.

    Raises:
        InputError: for arrays of different lengths, or of none.
    """
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise invalid("examples", (first.shape, second.shape), "the same examples for both, at least one")
    n = len(first)
    b, c = int((first & ~second).sum()), int((second & ~first).sum())
    centre, padded = (b - c) / (n + 2), b + c + 1
    half = normal_quantile(confidence) * math.sqrt(padded - (b - c) ** 2 / (n + 2)) / (n + 2)
    return PairedComparison(n, b, c, (b - c) / n, max(centre - half, -1.0), min(centre + half, 1.0), _mcnemar(b, c))


def rank_correlation(first: Sequence[float], second: Sequence[float], confidence: float = 0.95) -> RankCorrelation:
    """Kendall's tau-b (Kendall 1945) of pairs, with the interval of Fieller, Hartley and Pearson (1957).

    The interval is tanh(atanh(tau) -+ z sqrt(0.437 / (n - 4))), found on pairs of normal variables with |tau| below
    about 0.8: approximate. tau is undefined where one side is constant, the interval for n <= 4 or |tau| = 1.

    Raises:
        InputError: for sequences of different lengths, or a value that is not finite.
    """
    n = len(first)
    if n != len(second) or not np.isfinite([*first, *second]).all():
        raise invalid("pairs", (n, len(second)), "as many finite values on the one side as on the other")
    rows, columns = np.triu_indices(n, k=1)
    order = [np.sign(np.subtract.outer(side, side))[rows, columns] for side in (first, second)]
    untied = [int(np.count_nonzero(signs)) for signs in order]
    if not all(untied):
        return RankCorrelation(n, None, None, None)
    tau = float(order[0] @ order[1]) / math.sqrt(untied[0] * untied[1])
    if n <= 4 or abs(tau) >= 1:
        return RankCorrelation(n, tau, None, None)
    half = normal_quantile(confidence) * math.sqrt(0.437 / (n - 4))
    return RankCorrelation(n, tau, math.tanh(math.atanh(tau) - half), math.tanh(math.atanh(tau) + half))


def _mcnemar(b: int, c: int) -> float:
    """Twice the lower tail of a fair coin thrown b + c times, in exact integers, at most 1."""
    tail, term = 0, 1
    for k in range(min(b, c) + 1):
        tail += term
        term = term * (b + c - k) // (k + 1)
    return min(1.0, float(Fraction(2 * tail, 2 ** (b + c))))


def resolution(n: int, p: float = 0.5, confidence: float = 0.95) -> float:
    """Smallest difference of two shares near `p`, each of `n` independent images, that a two-proportion z test calls.

    z sqrt(2 p (1 - p) / n), a share in [0, 1]. Two networks on the same images are paired, and a paired test may
    call smaller differences.

    Raises:
        InputError: unless n >= 1, 0 <= p <= 1 and 0 < confidence < 1.
    """
    if n < 1:
        raise invalid("n", n, "at least 1")
    if not 0 <= p <= 1:
        raise invalid("p", p, "a share between 0 and 1")
    return normal_quantile(confidence) * math.sqrt(2 * p * (1 - p) / n)


def normal_quantile(confidence: float) -> float:
    """The z with P(|Z| <= z) = confidence for a standard normal Z; 1.96 at 0.95."""
    if not 0 < confidence < 1:
        raise invalid("confidence", confidence, "strictly between 0 and 1")
    return NormalDist().inv_cdf((1 + confidence) / 2)


def t_probability(t: float, degrees: int) -> float:
    """P(|T| <= t) for Student's T with `degrees` >= 1 of freedom and t >= 0; 0.95 at (12.706, 1)."""
    if degrees < 1:
        raise invalid("degrees", degrees, "an integer of at least 1")
    return _t_probability(math.atan2(t, math.sqrt(degrees)), degrees)


@cache
def t_quantile(degrees: int, confidence: float) -> float:
    """The t with P(|T| <= t) = confidence for Student's T with `degrees` >= 1 of freedom; 12.706 at (1, 0.95)."""
    if degrees < 1:
        raise invalid("degrees", degrees, "an integer of at least 1")
    if not 0 < confidence < 1:
        raise invalid("confidence", confidence, "strictly between 0 and 1")
    low, high = 0.0, math.pi / 2
    while (angle := (low + high) / 2) not in (low, high):  # until floating point has nothing in between
        low, high = (angle, high) if _t_probability(angle, degrees) < confidence else (low, angle)
    return math.sqrt(degrees) * math.tan(angle)


def _t_probability(angle: float, degrees: int) -> float:
    """P(|T| <= sqrt(degrees) tan(angle)), a finite series (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4)."""
    sine, cosine = math.sin(angle), math.cos(angle)
    term = cosine if degrees % 2 else 1.0
    total = 0.0
    for k in range(degrees % 2, degrees - 1, 2):
        total += term
        term *= (k + 1) / (k + 2) * cosine**2
    return 2 / math.pi * (angle + sine * total) if degrees % 2 else sine * total
