"""A model of runs by architecture and seed: the value of each architecture, and how well it is known.

A run's accuracy is its architecture's value, plus an effect of its seed that is the same for all architectures, plus
normal noise of one variance (two-way layout without interaction, by least squares, also where runs are missing).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from robust_arch.common.statistics import rounding_deviation

_DRAWS, _FEWEST_DRAWS = 10_000, 1_000
_NUMBERS = 10_000_000  # drawn at once, but at least the fewest draws
_RARE = 0.01
_FEWEST = 5
_LEAST_FREEDOM = 0.25  # below it there is next to no information on an architecture's scatter


@dataclass(frozen=True)
class SeedModel:
    """The fitted model of A architectures.

    Attributes:
        values: (A,), in percent.
        counts: (A,), runs of each.
        loads: (A, K); the covariance of the values is sigma^2 (diag(1 / counts) + loads loads^T), up to a term that
            cancels in differences. Zero where every architecture has every seed.
        sigma: standard deviation of the noise in points; None where no architecture has two runs.
        degrees: of freedom of sigma.
        scatter: (A,), sum of squared residuals of each.
        freedoms: (A,), the part of the degrees of freedom of each.
    """

    values: np.ndarray
    counts: np.ndarray
    loads: np.ndarray
    sigma: float | None
    degrees: int
    scatter: np.ndarray
    freedoms: np.ndarray

    def deviation(self, architecture: int) -> float:
        """Standard deviation in points of that architecture's runs about its value."""
        return float(np.sqrt(self.scatter[architecture] / self.freedoms[architecture]))


@dataclass(frozen=True)
class _Seeds:
    """Effects of seeds (S,), the loads, the degrees of freedom they use, and the part of each run in them (A, S)."""

    effects: np.ndarray
    loads: np.ndarray
    used: int
    leverage: np.ndarray


def fit(runs: np.ndarray, step: float = 0.0, *, by_seed: bool = True) -> SeedModel:
    """Least squares on (A, S) accuracies, NaN where there is no run.

    Effects of seeds are left out where seeds do not link all architectures, as in two studies without a common seed, or
    where no degrees of freedom would be left for the noise.

    Args:
        runs: in percent.
        step: one test image in points; the noise is at least that of rounding to it.
        by_seed: whether a column is a seed, with the same effect on all architectures.
    """
    there = ~np.isnan(runs)
    counts = there.sum(axis=1)
    means = np.nansum(runs, axis=1) / counts
    centred = np.where(there, runs - means[:, None], 0.0)
    seeds = _seed_effects(there, counts, centred) if by_seed else None
    if seeds is None:
        seeds = _Seeds(np.zeros(runs.shape[1]), np.zeros((len(runs), 0)), 0, np.zeros(runs.shape))
    values = means - (there * seeds.effects).sum(axis=1) / counts
    scatter = np.sum(np.where(there, runs - values[:, None] - seeds.effects, 0.0) ** 2, axis=1)
    freedoms = counts - 1 - np.sum(there * seeds.leverage, axis=1)
    degrees = int(there.sum()) - len(runs) - seeds.used
    sigma = None
    if degrees > 0:
        sigma = max(float(np.sqrt(scatter.sum() / degrees)), rounding_deviation(step), 1e-9)
    return SeedModel(values, counts, seeds.loads, sigma, degrees, scatter, freedoms)


def _seed_effects(there: np.ndarray, counts: np.ndarray, centred: np.ndarray) -> _Seeds | None:
    """From the normal equations with the architectures eliminated; in closed form for complete tables."""
    architectures, seeds = there.shape
    shares = there / counts[:, None]
    matrix = np.diag(there.sum(axis=0).astype(float)) - shares.T @ there
    rank = int(np.linalg.matrix_rank(matrix))
    if rank < seeds - 1 or int(there.sum()) - architectures - rank < 1:
        return None
    if there.all():
        leverage = np.full(there.shape, (1 - 1 / seeds) / architectures)
        return _Seeds(centred.mean(axis=0), np.zeros((architectures, 0)), rank, leverage)
    inverse = np.linalg.pinv(matrix, hermitian=True)
    sizes, directions = np.linalg.eigh(inverse)
    loads = shares @ (directions * np.sqrt(np.maximum(sizes, 0)))
    # (e_s - share) inverse (e_s - share) of the run of each architecture with seed s
    crossed = shares @ inverse
    leverage = np.diag(inverse) - 2 * crossed + np.sum(crossed * shares, axis=1, keepdims=True)
    return _Seeds(inverse @ centred.sum(axis=0), loads, rank, leverage)


def noisy(model: SeedModel, step: float = 0.0) -> list[int]:
    """Architectures whose variance is too large a part of all to be chance at the 1% level (Cochran 1941).

    The noisiest first; each further one is judged among the rest. Empty for fewer than five architectures with two
    runs. step: as in `fit`; no variance is taken to be below that of rounding to it.
    """
    places, freedoms, variances = _variances(model, step)
    found = []
    while len(places) >= _FEWEST:
        worst = int(np.argmax(variances))
        if variances[worst] <= _by_chance(tuple(freedoms))[0] * variances.sum():
            break
        found.append(int(places[worst]))
        places, freedoms, variances = (np.delete(each, worst) for each in (places, freedoms, variances))
    return found


def unequal(model: SeedModel, step: float = 0.0) -> bool:
    """Whether variances differ by more than chance at the 1% level (Bartlett 1937); arguments as above."""
    places, freedoms, variances = _variances(model, step)
    return len(places) >= _FEWEST and bool(_bartlett(variances, freedoms) > _by_chance(tuple(freedoms))[1])


def _variances(model: SeedModel, step: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions of the architectures that were trained more than once, their degrees of freedom and variances."""
    places = np.flatnonzero(model.freedoms > _LEAST_FREEDOM)
    freedoms = model.freedoms[places]
    variances = np.maximum(model.scatter[places] / freedoms, max(rounding_deviation(step) ** 2, 1e-18))
    return places, np.round(freedoms, 6), variances  # rounded, so that the cache knows equal ones


def _bartlett(variances: np.ndarray, freedoms: np.ndarray) -> np.ndarray:
    """Bartlett's statistic of (..., A) variances, up to a factor."""
    pooled = (variances * freedoms).sum(axis=-1) / freedoms.sum()
    return np.asarray(freedoms.sum() * np.log(pooled) - (freedoms * np.log(variances)).sum(axis=-1))


@lru_cache(maxsize=64)
def _by_chance(freedoms: tuple[float, ...]) -> tuple[float, float]:
    """Limits at the 1% level: of the largest variance's part of all, and of Bartlett's statistic."""
    own = np.array(freedoms)
    draws = max(_FEWEST_DRAWS, min(_DRAWS, _NUMBERS // len(own)))
    drawn = np.maximum(np.random.default_rng(0).chisquare(own, (draws, len(own))) / own, 1e-18)
    level = 1 - _RARE
    largest = float(np.quantile(drawn.max(axis=1) / drawn.sum(axis=1), level))
    return largest, float(np.quantile(_bartlett(drawn, own), level))
