"""Runs by architecture and seed: the value of each architecture, and how surely it is known.

A run's accuracy is taken as its architecture's value plus what its seed does to all architectures alike plus normal
noise of one variance (two-way layout without interaction, by least squares, also where runs are missing).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

_DRAWS = 10_000
_RARE = 0.01


@dataclass(frozen=True)
class Layout:
    """Of A architectures: values (A,), in percent, and counts (A,), runs of each.

    sigma: standard deviation of the noise in points, on `degrees` of freedom; None where no architecture has two runs.
    loads: (A, K); the covariance of the values is sigma^2 (diag(1 / counts) + loads loads^T), up to what is the same
    for all pairs. Zero where every architecture has every seed.
    """

    values: np.ndarray
    counts: np.ndarray
    loads: np.ndarray
    sigma: float | None
    degrees: int


def fit(runs: np.ndarray, step: float = 0.0) -> Layout:
    """Least squares on (A, S) accuracies, NaN where there is no run.

    Where seeds do not link all architectures, as in two studies without a common one, or leave nothing to see the noise
    by, seeds are left out of the account.

    Args:
        runs: in percent.
        step: between accuracies that test images can tell apart, in points; the noise is not taken to be below that
            of rounding to it.
    """
    there = ~np.isnan(runs)
    counts = there.sum(axis=1)
    means = np.nansum(runs, axis=1) / counts
    centred = np.where(there, runs - means[:, None], 0.0)
    seeds, loads, used = _seed_effects(there, counts, centred)
    values = means - (there * seeds).sum(axis=1) / counts
    residuals = np.where(there, runs - values[:, None] - seeds, 0.0)
    degrees = int(there.sum()) - len(runs) - used
    if degrees < 1:
        return Layout(values, counts, loads, None, 0)
    sigma = float(np.sqrt(np.sum(residuals**2) / degrees))
    return Layout(values, counts, loads, max(sigma, step / np.sqrt(12), 1e-9), degrees)


def _seed_effects(there: np.ndarray, counts: np.ndarray, centred: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """What each seed adds (S,), the loads, and how many degrees of freedom that takes.

    The normal equations with the architectures eliminated; complete tables have them in closed form.
    """
    architectures, seeds = there.shape
    nothing = np.zeros(seeds), np.zeros((architectures, 0)), 0
    shares = there / counts[:, None]
    matrix = np.diag(there.sum(axis=0).astype(float)) - shares.T @ there
    rank = int(np.linalg.matrix_rank(matrix))
    if rank < seeds - 1 or int(there.sum()) - architectures - rank < 1:
        return nothing
    if there.all():
        return centred.mean(axis=0), nothing[1], rank
    inverse = np.linalg.pinv(matrix, hermitian=True)
    sizes, directions = np.linalg.eigh(inverse)
    return inverse @ centred.sum(axis=0), shares @ (directions * np.sqrt(np.maximum(sizes, 0))), rank


def uneven(runs: np.ndarray) -> int | None:
    """The architecture whose variance is too large a part of all to be chance at the 1% level (Cochran 1941), if any.

    Never of fewer than five architectures with two runs. runs: (A, S), NaN where there is no run; what a seed does to
    all alike is taken out first. The null distribution is drawn at random.
    """
    residuals = runs - np.nanmean(runs, axis=0, keepdims=True)
    degrees = np.sum(~np.isnan(runs), axis=1) - 1
    repeated = np.flatnonzero(degrees > 0)
    if len(repeated) < 5:
        return None
    variances = np.nanvar(residuals[repeated], axis=1, ddof=1)
    worst = int(np.argmax(variances))
    too_large = _largest_part(tuple(degrees[repeated].tolist())) * variances.sum()
    return int(repeated[worst]) if variances[worst] > too_large else None


@lru_cache(maxsize=64)
def _largest_part(degrees: tuple[int, ...]) -> float:
    """The part of all variances that the largest exceeds by chance at the 1% level."""
    drawn = np.random.default_rng(0).chisquare(degrees, (_DRAWS, len(degrees))) / np.array(degrees)
    return float(np.quantile(drawn.max(axis=1) / drawn.sum(axis=1), 1 - _RARE))
