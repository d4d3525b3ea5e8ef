"""Differences between means of architectures, one or many at once, against the noise between seeds.

Runs are assumed to be normal about their architecture's mean, with one common variance. Many differences at once are
tested by the largest of them, against random draws of the largest Studentised difference among as many architectures
that do not differ (Dunnett 1955 where all are compared with one; Hothorn, Bretz and Westfall 2008 in general). So the
best of many must be better than the best of many equal ones.
"""

from __future__ import annotations

import math
import pickle
from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from robust_arch.analysis.claims.measured import Measured

POWER = 0.8
MOST_SEEDS = 50
"""Seeds per architecture that a study may have; where more are needed, their number is not computed."""
_BELOW = 0.975  # probability below the upper bound of a 95% interval
_ABOVE = NormalDist().inv_cdf(POWER)
_LEAST_P = 1e-12  # runs are not normal enough for a smaller tail to mean anything
_DRAWS, _DRAWS_OF_MANY, _MANY = 20_000, 5_000, 5_000
_NORMAL = 1_000  # degrees of freedom above which Student's t is taken as normal
_TOO_MANY = 100_000  # pairs above which all pairs of their architectures are tested together
_CHUNK = 4_000_000  # numbers held at once while drawing


@dataclass(frozen=True)
class Difference:
    """A difference in points with its 95% interval.

    Attributes:
        value: in these runs.
        low: lower bound.
        high: upper bound.
        p_value: one-sided, of no difference above 0.
        bound: the largest difference of any pair that these runs do not exclude.
    """

    value: float
    low: float
    high: float
    p_value: float
    bound: float


@dataclass(frozen=True)
class Pairs:
    """Differences value[first] - value[second]; both are (P,) positions of architectures."""

    first: np.ndarray
    second: np.ndarray

    def __len__(self) -> int:
        return len(self.first)

    @property
    def members(self) -> np.ndarray:
        """The architectures in any pair."""
        return np.union1d(self.first, self.second)


class Contrast:
    """The mean over all pairs of first minus second, tested by Student's t."""

    def __init__(self, found: Measured, pairs: Pairs) -> None:
        self.found, self.sigma = found, _sigma(found)
        self.weights = np.zeros(len(found.names))
        np.add.at(self.weights, pairs.first, 1 / len(pairs))
        np.add.at(self.weights, pairs.second, -1 / len(pairs))

    def difference(self) -> Difference:
        """The difference in these runs."""
        from scipy.special import stdtr, stdtrit

        model = self.found.model
        value = float(self.weights @ model.values)
        variance = np.sum(self.weights**2 / model.counts) + np.sum((self.weights @ model.loads) ** 2)
        error = self.sigma * math.sqrt(float(variance))
        half = float(stdtrit(model.degrees, _BELOW)) * error
        tail = max(float(stdtr(model.degrees, -abs(value) / error)), _LEAST_P)
        return Difference(value, value - half, value + half, tail if value > 0 else 1 - tail, value + half)

    def seeds_to_show(self, effect: float) -> int | None:
        """Seeds per architecture that find a true difference of `effect` points with power 0.8; None above 50."""
        spread = self.sigma * math.sqrt(float(np.sum(self.weights**2)))
        return _fewest(self.found, effect, spread, _BELOW, _ABOVE)

    seeds_to_settle = seeds_to_show  # the same number excludes the effect where there is none


class Largest:
    """The pair whose Studentised difference is largest, tested as the largest of all."""

    def __init__(self, found: Measured, pairs: Pairs) -> None:
        self.found, self.pairs, self.sigma = found, pairs, _sigma(found)
        model = found.model
        self.values = model.values[pairs.first] - model.values[pairs.second]
        self.errors = self.sigma * np.sqrt(_variances(model.counts, model.loads, pairs.first, pairs.second))
        self.best = int(np.argmax(self.values / self.errors))

    def names(self) -> tuple[str, str]:
        """The two architectures, the better one first."""
        return self.found.names[self.pairs.first[self.best]], self.found.names[self.pairs.second[self.best]]

    def difference(self) -> Difference:
        """The difference in these runs; interval and p-value hold for all pairs together."""
        draws = self._draws(self.found.model.degrees)
        value, error = float(self.values[self.best]), float(self.errors[self.best])
        critical = float(np.quantile(draws, _BELOW))
        half = critical * error
        p_value = (1 + int(np.sum(draws >= value / error))) / (1 + len(draws))
        bound = float(np.max(self.values + critical * self.errors))
        return Difference(value, value - half, value + half, p_value, bound)

    def seeds_to_show(self, effect: float) -> int | None:
        """Seeds per architecture that find one pair `effect` points apart with power 0.8; None above 50."""
        return self._seeds(effect, _ABOVE)

    def seeds_to_settle(self, effect: float) -> int | None:
        """The same, and that exclude `effect` points for every pair with power 0.8 where nothing differs."""
        return self._seeds(effect, max(_ABOVE, float(np.quantile(self._draws(0), POWER))))

    def _seeds(self, effect: float, beyond: float) -> int | None:
        # at other degrees of freedom the critical value is taken to be Student's with the same tail
        below = NormalDist().cdf(float(np.quantile(self._draws(0), _BELOW)))
        return _fewest(self.found, effect, self.sigma * math.sqrt(2), below, beyond)

    def _draws(self, degrees: int) -> np.ndarray:
        model, pairs = self.found.model, self.pairs
        if len(pairs) > _TOO_MANY:
            return _ranges(len(pairs.members), degrees)
        # the distribution is the same for all equal counts
        counts = model.counts if len(set(model.counts)) > 1 else np.ones(len(model.counts))
        return _largest_of_many(pickle.dumps((counts.astype(float), model.loads, pairs.first, pairs.second)), degrees)


def _fewest(found: Measured, effect: float, spread: float, below: float, beyond: float) -> int | None:
    """The fewest seeds at which `effect` is at least the critical value plus `beyond` (a normal quantile) errors.

    It is more than every architecture has now, or as many as the one with most where numbers differ. spread: the
    difference's standard error with one seed, in points; below: probability below the interval's upper bound.
    """
    from scipy.special import stdtrit

    counts = found.model.counts
    levels = np.array([below, NormalDist().cdf(beyond)])

    def enough(seeds: int) -> bool:
        degrees = min(max(len(found.names) - 1, 1) * (seeds - 1), _NORMAL)
        return float(stdtrit(degrees, levels).sum()) * spread / math.sqrt(seeds) <= effect

    candidates = range(max(int(counts.max()), int(counts.min()) + 1), MOST_SEEDS + 1)
    position = bisect_left(candidates, x=True, key=enough)
    return candidates[position] if position < len(candidates) else None


def _sigma(found: Measured) -> float:
    if found.model.sigma is None:
        raise ValueError("no architecture was trained twice, so there is no estimate of the noise")
    return found.model.sigma


def _variances(counts: np.ndarray, loads: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(P,) variances of the differences, in units of the noise's variance."""
    shared = np.sum((loads[first] - loads[second]) ** 2, axis=1)
    return np.asarray(1 / counts[first] + 1 / counts[second] + shared)


@lru_cache(maxsize=64)
def _largest_of_many(design: bytes, degrees: int) -> np.ndarray:
    """Draws of the largest Studentised difference where nothing differs; degrees 0: with a known variance.

    design: pickled, as arrays are no keys of a cache: counts, loads, first and second.
    """
    counts, loads, first, second = pickle.loads(design)
    errors = np.sqrt(_variances(counts, loads, first, second))
    generator = np.random.default_rng(0)
    total = _DRAWS if len(first) <= _MANY else _DRAWS_OF_MANY
    step = max(1, _CHUNK // len(first))
    found = []
    for start in range(0, total, step):
        size = min(step, total - start)
        values = generator.standard_normal((size, len(counts))) / np.sqrt(counts)
        values += generator.standard_normal((size, loads.shape[1])) @ loads.T
        scale = np.sqrt(generator.chisquare(degrees, size) / degrees) if degrees else np.ones(size)
        found.append(np.max((values[:, first] - values[:, second]) / errors, axis=1) / scale)
    return np.concatenate(found)


@lru_cache(maxsize=8)
def _ranges(members: int, degrees: int) -> np.ndarray:
    """Draws of the Studentised range over sqrt(2), an upper bound for any pair (Tukey and Kramer)."""
    generator = np.random.default_rng(0)
    found = np.array([np.ptp(generator.standard_normal(members)) for _ in range(_DRAWS_OF_MANY)]) / math.sqrt(2)
    return found / np.sqrt(generator.chisquare(degrees, _DRAWS_OF_MANY) / degrees) if degrees else found
