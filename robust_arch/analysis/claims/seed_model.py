"""A model of runs by architecture, seed and site: the value of each architecture, and how well it is known.

A run's accuracy is its architecture's value, plus effects of its seed and of its site that are the same for all
architectures, plus normal noise of one variance (no interactions, by least squares, also where runs are missing).
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
class SiteEffects:
    """The effects of S sites; only differences between sites that architectures link mean anything.

    Attributes:
        names: of the sites.
        effects: (S,) in points.
        covariance: (S, S) of the effects, in units of the noise's variance.
    """

    names: tuple[str, ...]
    effects: np.ndarray
    covariance: np.ndarray


@dataclass(frozen=True)
class SeedModel:
    """The fitted model of A architectures.

    Attributes:
        values: (A,), in percent.
        counts: (A,), runs of each.
        loads: (A, K); the covariance of the values is sigma^2 (diag(1 / counts) + loads loads^T), up to a term that
            cancels in differences. Zero where every architecture has every seed at one site.
        sigma: standard deviation of the noise in points; None where no architecture has two runs.
        degrees: of freedom of sigma.
        scatter: (A,), sum of squared residuals of each.
        freedoms: (A,), the part of the degrees of freedom of each.
        sites: the effects of sites; None where there is one, or where none can be estimated.
    """

    values: np.ndarray
    counts: np.ndarray
    loads: np.ndarray
    sigma: float | None
    degrees: int
    scatter: np.ndarray
    freedoms: np.ndarray
    sites: SiteEffects | None = None

    def deviation(self, architecture: int) -> float:
        """Standard deviation in points of that architecture's runs about its value."""
        return float(np.sqrt(self.scatter[architecture] / self.freedoms[architecture]))


@dataclass(frozen=True)
class _Shared:
    """Effects that all architectures share.

    Attributes:
        coefficients: (K,) of the factors.
        covariance: (K, K) of the coefficients, in units of the noise's variance.
        effects: (C,) per column of the table.
        loads: of the architectures' values.
        used: degrees of freedom.
        leverage: (A, C), the part of each run in the effects.
    """

    coefficients: np.ndarray
    covariance: np.ndarray
    effects: np.ndarray
    loads: np.ndarray
    used: int
    leverage: np.ndarray


def fit(
    runs: np.ndarray,
    step: float = 0.0,
    *,
    by_seed: bool = True,
    seeds: np.ndarray | None = None,
    sites: np.ndarray | None = None,
) -> SeedModel:
    """Least squares on (A, C) accuracies, NaN where there is no run.

    Effects of seeds are left out where seeds do not link all architectures, as in two studies without a common seed,
    where they cannot be told from those of sites, or where no degrees of freedom would be left for the noise. Effects
    of sites are left out where no architecture links two of them.

    Args:
        runs: in percent.
        step: one test image in points; the noise is at least that of rounding to it.
        by_seed: whether a seed has the same effect on all architectures; false where seeds are not recorded.
        seeds: (C,) the seed of each column; None where each column is one.
        sites: (C,) the site of each column; None where there is one.
    """
    there = ~np.isnan(runs)
    counts = there.sum(axis=1)
    means = np.nansum(runs, axis=1) / counts
    centred = np.where(there, runs - means[:, None], 0.0)
    if by_seed and seeds is None:
        seeds = np.arange(runs.shape[1])
    shared, by_site = _shared_effects(there, counts, centred, seeds if by_seed else None, sites)
    values = means - (there * shared.effects).sum(axis=1) / counts
    scatter = np.sum(np.where(there, runs - values[:, None] - shared.effects, 0.0) ** 2, axis=1)
    freedoms = counts - 1 - np.sum(there * shared.leverage, axis=1)
    degrees = int(there.sum()) - len(runs) - shared.used
    sigma = None
    if degrees > 0:
        sigma = max(float(np.sqrt(scatter.sum() / degrees)), rounding_deviation(step), 1e-9)
    effects = None
    if sites is not None and by_site:
        last = slice(-by_site, None)
        names = tuple(map(str, np.unique(sites)))
        effects = SiteEffects(names, shared.coefficients[last], shared.covariance[last, last])
    return SeedModel(values, counts, shared.loads, sigma, degrees, scatter, freedoms, effects)


def _indicators(labels: np.ndarray) -> np.ndarray:
    """(C, K): whether a column has the label, the labels sorted."""
    return np.asarray(labels[:, None] == np.unique(labels), dtype=float)


def _shared_effects(
    there: np.ndarray,
    counts: np.ndarray,
    centred: np.ndarray,
    seeds: np.ndarray | None,
    sites: np.ndarray | None,
) -> tuple[_Shared, int]:
    """The effects of seeds and sites that the runs can tell apart, and the number of sites among the coefficients."""
    by_seed, by_site = (None if each is None else _indicators(each) for each in (seeds, sites))
    linked = 0 if by_site is None else int(np.linalg.matrix_rank(_normal_matrix(there, counts, by_site)))
    choices = []  # factors, the rank with which they can be told apart, and how many of them are sites
    if by_seed is not None and by_site is not None and linked:
        choices.append((np.hstack([by_seed, by_site]), by_seed.shape[1] - 1 + linked, by_site.shape[1]))
    if by_site is not None and linked:
        choices.append((by_site, linked, by_site.shape[1]))
    if by_seed is not None:
        choices.append((by_seed, by_seed.shape[1] - 1, 0))
    for factors, needed, number in choices:
        matrix = _normal_matrix(there, counts, factors)
        rank = int(np.linalg.matrix_rank(matrix))
        if rank >= needed and int(there.sum()) - len(there) - rank >= 1:
            return _solved(there, counts, centred, factors, matrix, rank), number
    architectures, columns = there.shape
    none = np.zeros(0)
    return _Shared(none, none, np.zeros(columns), np.zeros((architectures, 0)), 0, np.zeros(there.shape)), 0


def _normal_matrix(there: np.ndarray, counts: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """(K, K), of the normal equations with the architectures eliminated."""
    held = there @ factors
    return np.asarray((factors.T * there.sum(axis=0)) @ factors - (held / counts[:, None]).T @ held)


def _solved(
    there: np.ndarray, counts: np.ndarray, centred: np.ndarray, factors: np.ndarray, matrix: np.ndarray, rank: int
) -> _Shared:
    """Least squares; in closed form for a complete table of seeds."""
    architectures, columns = there.shape
    sums = factors.T @ centred.sum(axis=0)
    if there.all() and factors.shape == (columns, columns):
        coefficients, leverage = sums / architectures, np.full(there.shape, (1 - 1 / columns) / architectures)
        covariance, loads = np.eye(columns) / architectures, np.zeros((architectures, 0))
        return _Shared(coefficients, covariance, factors @ coefficients, loads, rank, leverage)
    inverse = np.linalg.pinv(matrix, hermitian=True)
    sizes, directions = np.linalg.eigh(inverse)
    shares = there @ factors / counts[:, None]
    loads = shares @ (directions * np.sqrt(np.maximum(sizes, 0)))
    # (f_c - share) inverse (f_c - share) of the run of each architecture in column c
    crossed = shares @ inverse
    own = np.sum(factors @ inverse * factors, axis=1)
    leverage = own - 2 * crossed @ factors.T + np.sum(crossed * shares, axis=1, keepdims=True)
    coefficients = inverse @ sums
    return _Shared(coefficients, inverse, factors @ coefficients, loads, rank, leverage)


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
