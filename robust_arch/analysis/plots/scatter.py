"""One recorded number of networks against another, with pooled intervals of both."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robust_arch.analysis.groups import Group
from robust_arch.analysis.networks import Network
from robust_arch.analysis.plots.captions import ROBUST, conditions
from robust_arch.analysis.plots.outliers import Extent, set_aside
from robust_arch.analysis.plots.pooled import pooled
from robust_arch.analysis.plots.style import BLUE, COLUMN, STYLE, new_figure, write_heading
from robust_arch.common.statistics import rank_correlation


@rc_context(STYLE)
def clean_against_robust(group: Group) -> Figure:
    """Worst-case against clean accuracy in percent, one point per network."""
    figure = new_figure(COLUMN, 2.9)
    axes = figure.add_subplot()
    draw_scatter(axes, group, "clean_acc", "worst_case_acc", "Clean accuracy (%)", ROBUST)
    write_heading(figure, conditions(pooled(group, also=("clean_acc",))))
    return figure


def draw_scatter(axes: Axes, group: Group, x: str, y: str, xlabel: str, ylabel: str) -> None:
    """One point per network at its means of the columns `x` and `y`, with both 95% intervals."""
    across, up = (pooled(group, name, also=(x, y)) for name in (x, y))
    runs = [pair for one, two in zip(across, up, strict=True) for pair in zip(one.runs, two.runs, strict=True)]
    if len(runs) > len(across.networks):
        first, second = np.transpose(runs)
        axes.scatter(first, second, s=3, color=BLUE, alpha=0.5, linewidths=0, zorder=1.9)
    axes.errorbar(
        [each.mean for each in across],
        [each.mean for each in up],
        xerr=[[each.mean - each.low for each in across], [each.high - each.mean for each in across]],
        yerr=[[each.mean - each.low for each in up], [each.high - each.mean for each in up]],
        fmt="o",
        color=BLUE,
        ecolor=(0.0, 0.447, 0.698, 0.35),  # the bars of many points would hide the points
        elinewidth=0.7,
        capsize=0,
        ms=3.5,
    )
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    set_aside(axes, Extent.of(across), Extent.of(up), across=True)


def rank_title(found: Sequence[Network], x: str, y: str) -> str:
    """Kendall's tau of the networks' means of two columns, with its 95% interval if defined."""
    across, up = ([network.numbers[name].mean for network in found] for name in (x, y))
    known = rank_correlation(across, up)
    if known.tau is None:
        return f"{known.n} networks"
    interval = "" if known.low is None else f" [{known.low:.2f}, {known.high:.2f}]"
    return rf"Kendall's $\tau$ = {known.tau:.2f}{interval}, {known.n} networks"
