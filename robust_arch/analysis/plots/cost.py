"""Robust accuracy against the cost of networks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from robust_arch.analysis.claims.measured import above
from robust_arch.analysis.networks import Network
from robust_arch.analysis.pareto import pareto_front
from robust_arch.analysis.plots.captions import ROBUST
from robust_arch.analysis.plots.marks import error_bars
from robust_arch.analysis.plots.outliers import Extent, set_aside
from robust_arch.analysis.plots.pooled import Pooled
from robust_arch.analysis.plots.series import Series, by_family, heading, mark
from robust_arch.analysis.plots.style import (
    BLUE,
    COLUMN,
    ORANGE,
    STYLE,
    WIDE,
    letter_panels,
    new_figure,
    write_heading,
)
from robust_arch.errors import InputError

COSTS = {"params": "Parameters", "macs": "Multiply-accumulates per image"}
_HEIGHT = 2.7


def differ(costs: Sequence[float]) -> bool:
    """Whether no two of the costs are equal within a budget's tolerance."""
    ordered = np.sort(np.array(costs, dtype=float))
    return len(ordered) > 1 and bool(above(ordered[1:], ordered[:-1]).all())


@rc_context(STYLE)
def against_cost(found: Pooled, last: Pooled | None = None) -> Figure:
    """Worst-case accuracy in percent against parameters and multiply-accumulates, one kind of mark per family.

    A cost that is the same for all networks, or is not recorded, has no panel.

    Args:
        found: the networks.
        last: the same networks of one family at the last epoch, drawn beside those at `best`, without a front.

    Raises:
        InputError: if no cost is left.
    """
    shown = [cost for cost in COSTS if varies(found, cost)]
    if not shown:
        raise InputError(f"results: no recorded cost differs between the networks of {found.group}")
    figure = new_figure(WIDE if len(shown) > 1 else COLUMN, _HEIGHT)
    for axes, cost in zip(figure.subplots(1, len(shown), sharey=True, squeeze=False).flat, shown, strict=True):
        series = _series(found, last, cost)
        draw_costs(axes, series, COSTS[cost], front=last is None and found.span > found.by_chance())
        if last is None:
            set_aside(axes, Extent.at([_cost(cost, each.network) for each in found]), Extent.of(found))
    letter_panels(figure.axes)
    figure.axes[0].set_ylabel(ROBUST)
    scatter = f" ({last.interval.rpartition(' of ')[2]} at last)" if last is not None and last.sigma else ""
    write_heading(figure, heading(found) + scatter)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _series(found: Pooled, last: Pooled | None, cost: str) -> list[Series]:
    if last is None:
        return by_family(found, partial(_cost, cost))
    looks = (("best epoch, chosen on held-out images", found, BLUE, "o"), ("last epoch", last, ORANGE, "s"))
    return [
        Series(label, [mark(each, _cost(cost, each.network)) for each in own], colour, marker)
        for label, own, colour, marker in looks
    ]


def varies(found: Pooled, cost: str) -> bool:
    """Whether a cost is recorded for all networks, and the largest exceeds the smallest by more than a tolerance."""
    costs = np.array([_cost(cost, each.network) for each in found])
    return bool(np.isfinite(costs).all() and above(costs.max(), costs.min()))


def _cost(cost: str, network: Network) -> float:
    return float(network.row[cost])


def draw_costs(axes: Axes, shown: Sequence[Series], xlabel: str, *, front: bool = True) -> None:
    """Every series over a logarithmic axis of costs, with the front of all non-dominated points if all costs differ.

    front: false for accuracies that differ by no more than their noise, whose front would name winners by chance; so
    would that of networks that cost the same.
    """
    for series in shown:
        error_bars(axes, series.marks, series.colour, series.marker, series.label, series.width)
    marks = [mark for series in shown for mark in series.marks]
    axes.set_xscale("log")
    axes.margins(x=0.08, y=0.1)
    edge = axes.get_xlim()[1]
    if front and differ([mark.x for mark in marks]):
        best = [marks[place] for place in pareto_front([mark.x for mark in marks], [mark.y for mark in marks])]
        axes.plot(
            [*(mark.x for mark in best), edge],
            [*(mark.y for mark in best), best[-1].y],
            drawstyle="steps-post",
            color="black",
            lw=0.8,
            ls="--",
            label="Pareto front of the means",
        )
    axes.set_xlim(right=edge)
    axes.set_xlabel(xlabel)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if edge / axes.get_xlim()[0] < 200 else (1.0,)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 20k, 1.5M
    axes.xaxis.set_minor_formatter(NullFormatter())
