"""One recorded number of networks against another, with intervals of both."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from robust_arch.analysis.networks import Network
from robust_arch.analysis.plots.style import BLUE
from robust_arch.common.statistics import rank_correlation


def draw_scatter(axes: Axes, found: Sequence[Network], x: str, y: str, xlabel: str, ylabel: str) -> None:
    """One point per network at its means of the columns `x` and `y`, with both 95% intervals."""
    across, up = ([network.numbers[name] for network in found] for name in (x, y))
    axes.errorbar(
        [estimate.mean for estimate in across],
        [estimate.mean for estimate in up],
        xerr=np.transpose([estimate.spread for estimate in across]),
        yerr=np.transpose([estimate.spread for estimate in up]),
        fmt="o",
        color=BLUE,
        ecolor=(0.0, 0.447, 0.698, 0.35),  # the bars of many points would hide the points
        elinewidth=0.7,
        capsize=0,
        ms=3.5,
    )
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)


def rank_title(found: Sequence[Network], x: str, y: str) -> str:
    """Kendall's tau of the networks' means of two columns, with its 95% interval if defined."""
    across, up = ([network.numbers[name].mean for network in found] for name in (x, y))
    known = rank_correlation(across, up)
    if known.tau is None:
        return f"{known.n} networks"
    interval = "" if known.low is None else f" [{known.low:.2f}, {known.high:.2f}]"
    return rf"Kendall's $\tau$ = {known.tau:.2f}{interval}, {known.n} networks"
