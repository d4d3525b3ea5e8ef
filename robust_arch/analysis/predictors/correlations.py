"""How much each predictor tells of robust accuracy: rank correlations over architectures, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from robust_arch.analysis.bounded import Bounded

COSTS = ("params", "macs")
DRAWS = 1_000
_FEWEST = 5
"""Architectures; of fewer no rank correlation is given."""
_TOP = 10  # one part in ten
Statistic = Callable[..., float]


@dataclass(frozen=True)
class Correlations:
    """Of one predictor with robust accuracy, over A architectures.

    Attributes:
        name: of the predictor.
        n: architectures with it.
        spearman: over all; None where it is not defined.
        kendall: over all.
        top_n: architectures in the most robust tenth.
        top: Kendall's tau in it; None for fewer than 5.
        beyond_costs: Spearman's correlation at equal parameters and MACs; None of the costs themselves.
    """

    name: str
    n: int
    spearman: Bounded | None
    kendall: Bounded | None
    top_n: int
    top: Bounded | None
    beyond_costs: Bounded | None


def correlations(
    rows: pd.DataFrame, names: Sequence[str], column: str = "worst_case_acc", draws: int = DRAWS, seed: int = 0
) -> list[Correlations]:
    """One per predictor, of means over the runs of each architecture.

    Intervals are percentiles over resampled architectures.

    Args:
        rows: comparable rows of results.csv with the columns `names`.
        names: of the predictors; parameters and MACs are put before them.
        column: of the robust accuracy.
        draws: number of resamples.
        seed: of the resamples.
    """
    found = []
    for name in (*COSTS, *names):
        columns = list(dict.fromkeys([name, *COSTS, column]))
        means = rows[rows[columns].notna().all(axis="columns")].groupby("arch", sort=True)[columns].mean()
        x, y, costs = means[name].to_numpy(float), means[column].to_numpy(float), means[list(COSTS)].to_numpy(float)
        top = np.argsort(-y, kind="stable")[: -(-len(y) // _TOP)]
        generator = np.random.default_rng(seed)
        everything = np.arange(len(y))

        def bounded(statistic: Statistic, places: np.ndarray, *values: np.ndarray) -> Bounded | None:
            return _bounded(statistic, places, values, draws, generator)  # noqa: B023  (called before the next one)

        found.append(
            Correlations(
                name=name,
                n=len(y),
                spearman=bounded(spearman, everything, x, y),
                kendall=bounded(kendall, everything, x, y),
                top_n=len(top),
                top=bounded(kendall, top, x, y),
                beyond_costs=None if name in COSTS else bounded(partial_spearman, everything, x, y, costs),
            )
        )
    return found


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's rank correlation; NaN where a side is constant."""
    return partial_spearman(first, second, np.empty((len(first), 0)))


def kendall(first: np.ndarray, second: np.ndarray) -> float:
    """Kendall's tau-b; NaN where a side is constant."""
    from scipy.stats import kendalltau

    return float(kendalltau(first, second).statistic)


def partial_spearman(first: np.ndarray, second: np.ndarray, held: np.ndarray) -> float:
    """Correlation of the ranks of two variables after linear regression of both on the ranks of the `held` (n, H).

    NaN where one of them is constant, or a function of those held.
    """
    from scipy.stats import rankdata

    ranks = rankdata(np.column_stack([first, second, held]), axis=0)
    ranks -= ranks.mean(axis=0)
    wanted, kept = ranks[:, :2], ranks[:, 2:]
    left = wanted - kept @ np.linalg.lstsq(kept, wanted, rcond=None)[0] if kept.shape[1] else wanted
    size = np.linalg.norm(left, axis=0)
    if (size <= 1e-9 * np.maximum(np.linalg.norm(wanted, axis=0), 1)).any():
        return float("nan")
    return float(left[:, 0] @ left[:, 1] / size.prod())


def _bounded(
    statistic: Statistic, places: np.ndarray, values: Sequence[np.ndarray], draws: int, generator: np.random.Generator
) -> Bounded | None:
    """The statistic of the values at `places` with percentiles over resamples of them; None if it is not defined."""

    def at(chosen: np.ndarray) -> float:
        return statistic(*(each[chosen] for each in values))

    if len(places) < _FEWEST or np.isnan(value := at(places)):
        return None
    drawn = np.array([at(generator.choice(places, len(places))) for _ in range(draws)])
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return Bounded(value, float(low), float(high))
