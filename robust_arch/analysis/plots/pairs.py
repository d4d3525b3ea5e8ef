"""One recorded number of each network against another, with intervals of both."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from robust_arch.analysis.networks import Estimate, Network
from robust_arch.analysis.plots.style import BLUE


def draw_pairs(axes: Axes, found: Sequence[Network], x: str, y: str, xlabel: str, ylabel: str) -> None:
    """A point a network at its means of the columns `x` and `y`, with the 95% interval of each."""
    across, up = ([network.numbers[name] for network in found] for name in (x, y))
    axes.errorbar(
        [estimate.mean for estimate in across],
        [estimate.mean for estimate in up],
        xerr=_spread(across),
        yerr=_spread(up),
        fmt="o",
        color=BLUE,
        ecolor=(0.0, 0.447, 0.698, 0.35),  # the bars of many points would hide the points
        elinewidth=0.7,
        capsize=0,
        ms=3.5,
    )
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)


def rank_correlation(found: Sequence[Network], x: str, y: str) -> float:
    """Spearman's rho over the networks' means, ties at their mean rank; NaN where one of the two is constant."""
    means = pd.DataFrame({name: [network.numbers[name].mean for network in found] for name in (x, y)})
    return float(means.rank().corr().to_numpy()[0, 1])


def _spread(estimates: Sequence[Estimate]) -> list[list[float]]:
    return [[each.mean - each.low for each in estimates], [each.high - each.mean for each in estimates]]
