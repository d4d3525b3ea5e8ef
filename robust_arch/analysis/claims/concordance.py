"""Kendall's tau between cost and robust accuracy of architectures, with a permutation test."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations
from statistics import NormalDist

import numpy as np

_EXACT = 7  # architectures up to which every order is counted
_ORDERS = 4_999
_CHUNK = 4_000_000  # numbers held at once
_MOST_PAIRS = 40_000  # of unequal cost for which orders are drawn; more need at least 284 architectures
_TAIL = 0.025
_Z = NormalDist().inv_cdf(1 - _TAIL)


@dataclass(frozen=True)
class Concordance:
    """How often the more expensive architecture of a pair is the more robust one.

    Attributes:
        tau: share of pairs in which it is more robust minus share in which it is less robust, in [-1, 1]; Kendall's
            tau where neither costs nor accuracies tie.
        low: tau minus the 97.5% point of tau over the orders of the accuracies, at least -1.
        high: tau minus the 2.5% point, at most 1. Where every order is counted, the interval excludes 0 if and only
            if at most 2.5% of them have a tau as far on that side. Of more than 40,000 pairs the points are those of
            the normal distribution with the exact variance.
        p_falls: share of the orders with a tau as low.
        pairs: number of pairs of unequal cost.
    """

    tau: float
    low: float
    high: float
    p_falls: float
    pairs: int


def concordance(more: np.ndarray, accuracy: np.ndarray) -> Concordance:
    """Tau and its test for (A,) accuracies.

    Args:
        more: (A, A), whether the column's architecture costs more than the row's.
        accuracy: (A,).

    Raises:
        ValueError: where no two costs, or no two accuracies, differ.
    """
    pairs, ranks = int(more.sum()), ranked(accuracy)
    if not pairs or not ranks.any():
        raise ValueError("no two architectures differ in cost, or in accuracy")
    if pairs > _MOST_PAIRS:
        return _in_the_limit(more, ranks, pairs)
    tau = _tau(more, ranks[None, :])[0]
    null = _null(more.tobytes(), len(accuracy), tuple(np.sort(ranks)))
    tail = math.floor(_TAIL * len(null) + 1e-9)  # number of orders that may lie beyond
    low, high = tau - null[-1 - tail], tau - null[tail]
    as_low = int(np.sum(null <= tau + 1e-12))
    p_falls = as_low / len(null) if len(accuracy) <= _EXACT else (1 + as_low) / (1 + len(null))
    return Concordance(float(tau), max(-1.0, float(low)), min(1.0, float(high)), p_falls, pairs)


def _in_the_limit(more: np.ndarray, ranks: np.ndarray, pairs: int) -> Concordance:
    tau = sum(
        int(np.sum(np.sign(ranks[None, :] - ranks[start : start + 512, None]), where=more[start : start + 512]))
        for start in range(0, len(ranks), 512)
    )
    spread = deviation(more, ranks)
    low, high = (tau - _Z * spread) / pairs, (tau + _Z * spread) / pairs
    return Concordance(tau / pairs, max(-1.0, low), min(1.0, high), NormalDist().cdf(tau / spread), pairs)


def deviation(more: np.ndarray, ranks: np.ndarray) -> float:
    """Standard deviation, over all orders of the ranks, of rising minus falling pairs (Daniels 1944).

    It is the exact one, with ties in costs and ranks: of half the sum of products of signs of costs and of ranks over
    ordered pairs, from the sums of their squares and of the squares of their row sums.
    """
    count = len(ranks)
    sums = more.sum(axis=1, dtype=float) - more.sum(axis=0, dtype=float)
    squares = 2.0 * float(more.sum())
    ordered = np.sort(ranks)
    own = count - np.searchsorted(ordered, ranks, side="right") - np.searchsorted(ordered, ranks, side="left")
    ties = np.unique(ranks, return_counts=True)[1].astype(float)
    own_squares = float(count**2 - ties @ ties)
    paths = (sums @ sums - squares) * (own.astype(float) @ own - own_squares) / max(count - 2, 1)
    return math.sqrt((4 * paths + 2 * squares * own_squares) / (4 * count * (count - 1)))


def ranked(accuracy: np.ndarray) -> np.ndarray:
    """Ranks from 0; accuracies that differ only by rounding errors have equal ranks."""
    return np.asarray(np.unique(np.round(accuracy, 9), return_inverse=True)[1])


def architectures_for(tau: float, power: float) -> int:
    """Number of architectures of different cost that show a true tau of that size at the two-sided 5% level.

    From the variance of tau without association, 2 (2 n + 5) / (9 n (n - 1)) (Kendall 1938).
    """
    bar = NormalDist().inv_cdf(1 - _TAIL) + NormalDist().inv_cdf(power)
    count = 2
    while bar * math.sqrt(2 * (2 * count + 5) / (9 * count * (count - 1))) > abs(tau):
        count += 1
    return count


def _tau(more: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """(R,), one per order; ranks: (R, A)."""
    rows, columns = np.nonzero(more)
    return np.asarray(np.sign(ranks[:, columns] - ranks[:, rows]).mean(axis=1))


@lru_cache(maxsize=64)
def _null(more: bytes, count: int, ranks: tuple[int, ...]) -> np.ndarray:
    """Sorted taus of every order of the ranks, or of many random ones."""
    matrix = np.frombuffer(more, dtype=bool).reshape(count, count)
    if count <= _EXACT:
        return np.sort(_tau(matrix, np.array(list(permutations(ranks)))))
    generator, pairs = np.random.default_rng(0), int(matrix.sum())
    orders = generator.permuted(np.tile(np.array(ranks, dtype=np.int32), (_ORDERS, 1)), axis=1)
    step = max(1, _CHUNK // pairs)
    return np.sort(np.concatenate([_tau(matrix, orders[start : start + step]) for start in range(0, _ORDERS, step)]))
