"""One robust mean per architecture, and the runs that lie far from the other runs of their architecture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from robust_arch.common.statistics import rounding_deviation

HUBER = 1.345
"""Deviations above this many standard deviations count as if they were this large (95% efficient if normal)."""
_WILD = 6.0  # standard deviations of a run about its architecture
_ROUNDS = 50
_NORMAL_MEDIAN = 0.6745  # of the absolute value of a standard normal variable


@dataclass(frozen=True)
class RobustMeans:
    """The values of A architectures from their runs.

    Attributes:
        centres: architecture to its mean, in the unit of the column.
        runs: architecture to its number of runs.
        scatter: standard deviation of a run about its architecture; None where no architecture has two runs.
        wild: runs more than six standard deviations from the others of their architecture, in words.
    """

    centres: pd.Series
    runs: pd.Series
    scatter: float | None
    wild: tuple[str, ...]


def robust_means(rows: pd.DataFrame, column: str = "worst_case_acc", step: float = 0.0) -> RobustMeans:
    """Huber's mean of each architecture (Huber 1964), with one scatter for all from differences between its runs.

    A wild run of three counts as if it were 1.345 standard deviations from the other two. Of two runs neither can be
    told to be the wild one.

    Args:
        rows: of results.csv, comparable.
        column: to take the mean of.
        step: the rounding of the column, in its unit.
    """
    values = rows[column].to_numpy(dtype=float)
    place, names = pd.factorize(rows["arch"])
    counts = np.bincount(place)
    scatter = _scatter(values, place, step)
    centre = rows[column].astype(float).groupby(place).median().to_numpy()
    if scatter is None:
        return RobustMeans(pd.Series(centre, names), pd.Series(counts, names), None, ())
    for _ in range(_ROUNDS):
        away = np.abs(values - centre[place])
        weights = np.minimum(1.0, HUBER * scatter / np.maximum(away, 1e-12))
        centre = np.bincount(place, weights * values) / np.bincount(place, weights)
    wild = np.flatnonzero((np.abs(values - centre[place]) > _WILD * scatter) & (counts[place] > 1))
    told = tuple(_told(rows, values, place, int(each), column) for each in wild)
    return RobustMeans(pd.Series(centre, names), pd.Series(counts, names), scatter, told)


def _scatter(values: np.ndarray, place: np.ndarray, step: float) -> float | None:
    """From the median difference between two runs of an architecture, which half of the pairs may spoil."""
    order = np.argsort(place, kind="stable")
    ends = np.flatnonzero(np.diff(place[order])) + 1
    found = [
        np.abs(group[:, None] - group[None, :])[np.triu_indices(len(group), 1)]
        for group in np.split(values[order], ends)
        if len(group) > 1
    ]
    if not found:
        return None
    middle = np.median(np.concatenate(found)) / (_NORMAL_MEDIAN * np.sqrt(2))
    return max(float(middle), rounding_deviation(step), 1e-9)


def _told(rows: pd.DataFrame, values: np.ndarray, place: np.ndarray, run: int, column: str) -> str:
    row = rows.iloc[run]
    others = np.delete(values, run)[np.delete(place, run) == place[run]]
    shown = ", ".join(f"{value:.2f}" for value in others[:5])
    return f"{row['arch']}, run {row['run_id']}: {column} {values[run]:.2f}, its other runs {shown}"
