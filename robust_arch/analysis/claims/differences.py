"""Differences between means of architectures, one or many at once, judged by the noise between seeds.

Runs are taken as normal about their architecture's mean, with one common variance. Many differences at once are judged
by the largest of them: the distribution of the largest Studentised difference among as many architectures that do not
differ, drawn at random (Dunnett 1955 where all stand against one; Hothorn, Bretz and Westfall 2008 in general). So the
best of many must be better than the best of many that are all alike.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from robust_arch.analysis.claims.measured import Measured
from robust_arch.statistics import t_probability, t_quantile

CONFIDENCE = 0.95
POWER = 0.8
MOST_SEEDS = 200
_DRAWS, _DRAWS_OF_MANY, _MANY = 20_000, 5_000, 5_000
_NORMAL = 1_000  # degrees of freedom, from which on Student's t is taken as normal
_TOO_MANY = 100_000  # pairs, above which all pairs of their architectures are judged together
_CHUNK = 4_000_000  # numbers held at once while drawing


@dataclass(frozen=True)
class Difference:
    """A difference in points with its 95% interval; p_value: one-sided, that it is not above 0."""

    value: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True)
class Pairs:
    """Differences mean[first] - mean[second]; each (P,) of positions among the architectures."""

    first: np.ndarray
    second: np.ndarray

    def __len__(self) -> int:
        return len(self.first)

    @property
    def members(self) -> np.ndarray:
        """The architectures that take part."""
        return np.union1d(self.first, self.second)


class Contrast:
    """The mean over all pairs of first minus second, by Student's t."""

    def __init__(self, found: Measured, pairs: Pairs) -> None:
        self.found = found
        self.weights = np.zeros(len(found.names))
        np.add.at(self.weights, pairs.first, 1 / len(pairs))
        np.add.at(self.weights, pairs.second, -1 / len(pairs))

    def difference(self) -> Difference:
        """What these runs show."""
        value = float(self.weights @ self.found.means)
        error = _sigma(self.found) * math.sqrt(float(np.sum(self.weights**2 / self.found.counts)))
        half = t_quantile(self.found.degrees, CONFIDENCE) * error
        tail = (1 - t_probability(abs(value) / error, self.found.degrees)) / 2
        return Difference(value, value - half, value + half, tail if value > 0 else 1 - tail)

    def seeds_for(self, effect: float) -> int | None:
        """Runs of each architecture that find a true difference of `effect` points with power 0.8, if 200 do."""
        spread = _sigma(self.found) * math.sqrt(float(np.sum(self.weights**2)))
        return _fewest(self.found, effect, spread, lambda degrees: t_quantile(degrees, CONFIDENCE))


class Largest:
    """The pair whose Studentised difference is largest, judged as the largest of all."""

    def __init__(self, found: Measured, pairs: Pairs) -> None:
        self.found, self.pairs = found, pairs
        self.values = found.means[pairs.first] - found.means[pairs.second]
        self.errors = _sigma(found) * np.sqrt(1 / found.counts[pairs.first] + 1 / found.counts[pairs.second])
        self.best = int(np.argmax(self.values / self.errors))

    def names(self) -> tuple[str, str]:
        """The two architectures, the better one first."""
        return self.found.names[self.pairs.first[self.best]], self.found.names[self.pairs.second[self.best]]

    def difference(self) -> Difference:
        """What these runs show; interval and p-value hold for all pairs together."""
        draws = self._draws(self.found.degrees)
        value, error = float(self.values[self.best]), float(self.errors[self.best])
        half = _critical(draws) * error
        p_value = (1 + int(np.sum(draws >= value / error))) / (1 + len(draws))
        return Difference(value, value - half, value + half, p_value)

    def bound(self) -> float:
        """The largest difference in points that these runs do not exclude for one pair or another."""
        return float(np.max(self.values + _critical(self._draws(self.found.degrees)) * self.errors))

    def seeds_for(self, effect: float) -> int | None:
        """Runs of each architecture that find one pair `effect` points apart with power 0.8, if 200 do.

        The critical value at other degrees of freedom is taken as Student's at the same tail.
        """
        tail = 2 * NormalDist().cdf(_critical(self._draws(0))) - 1
        spread = _sigma(self.found) * math.sqrt(2)
        return _fewest(self.found, effect, spread, lambda degrees: t_quantile(degrees, tail))

    def _draws(self, degrees: int) -> np.ndarray:
        counts = self.found.counts
        relative = tuple(counts / counts[0]) if len(set(counts)) > 1 else (1.0,) * len(counts)
        return _largest_of_many(relative, tuple(self.pairs.first), tuple(self.pairs.second), degrees)


def _fewest(found: Measured, effect: float, spread: float, critical: Callable[[int], float]) -> int | None:
    """The fewest seeds, more than there are, at which `effect` stands `critical` plus the power's quantile away."""

    def enough(seeds: int) -> bool:
        degrees = min(max(len(found.names) - 1, 1) * (seeds - 1), _NORMAL)
        return (critical(degrees) + t_quantile(degrees, 2 * POWER - 1)) * spread / math.sqrt(seeds) <= effect

    candidates = range(int(found.counts.min()) + 1, MOST_SEEDS + 1)
    position = bisect_left(candidates, x=True, key=enough)
    return candidates[position] if position < len(candidates) else None


def _sigma(found: Measured) -> float:
    if found.sigma is None:
        raise ValueError("no architecture was trained twice: there is no estimate of the noise")
    return max(found.sigma, 1e-9)  # runs that agree to the last digit, as in made-up studies


def _critical(draws: np.ndarray) -> float:
    return float(np.quantile(draws, (1 + CONFIDENCE) / 2))


@lru_cache(maxsize=64)
def _largest_of_many(
    counts: tuple[float, ...], first: tuple[int, ...], second: tuple[int, ...], degrees: int
) -> np.ndarray:
    """Draws of the largest Studentised difference under no difference; degrees 0: with a known variance."""
    if len(first) > _TOO_MANY:
        return _ranges(len(set(first) | set(second)), degrees)
    generator = np.random.default_rng(0)
    left, right, runs = np.array(first), np.array(second), np.array(counts)
    errors = np.sqrt(1 / runs[left] + 1 / runs[right])
    total = _DRAWS if len(left) <= _MANY else _DRAWS_OF_MANY
    step = max(1, _CHUNK // len(left))
    found = []
    for start in range(0, total, step):
        size = min(step, total - start)
        means = generator.standard_normal((size, len(runs))) / np.sqrt(runs)
        scale = np.sqrt(generator.chisquare(degrees, size) / degrees) if degrees else np.ones(size)
        found.append(np.max((means[:, left] - means[:, right]) / errors, axis=1) / scale)
    return np.concatenate(found)


def _ranges(members: int, degrees: int) -> np.ndarray:
    """Draws of the Studentised range over sqrt(2), which bounds what any pair reaches (Tukey and Kramer)."""
    generator = np.random.default_rng(0)
    found = np.empty(_DRAWS_OF_MANY)
    for position in range(_DRAWS_OF_MANY):
        found[position] = np.ptp(generator.standard_normal(members)) / math.sqrt(2)
    return found / np.sqrt(generator.chisquare(degrees, _DRAWS_OF_MANY) / degrees) if degrees else found
