"""Accuracy against the cost of networks, with the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from robust_arch.analysis.pareto import pareto_front
from robust_arch.analysis.plots.marks import Mark, error_bars


@dataclass(frozen=True)
class Series:
    """Points of one kind, their look, and their label in the legend."""

    label: str
    marks: Sequence[Mark]
    colour: str
    marker: str
    width: float = 0.8  # of the intervals' lines, in points


def draw_costs(axes: Axes, shown: Sequence[Series], xlabel: str) -> None:
    """Every series over a logarithmic axis of costs, and one front of all non-dominated points."""
    for series in shown:
        error_bars(axes, series.marks, series.colour, series.marker, series.label, series.width)
    marks = [mark for series in shown for mark in series.marks]
    front = [marks[place] for place in pareto_front([mark.x for mark in marks], [mark.y for mark in marks])]
    axes.set_xscale("log")
    axes.margins(x=0.08, y=0.1)
    edge = axes.get_xlim()[1]
    axes.plot(
        [*(mark.x for mark in front), edge],
        [*(mark.y for mark in front), front[-1].y],
        drawstyle="steps-post",
        color="black",
        lw=0.8,
        ls="--",
        label="Pareto front",
    )
    axes.set_xlim(right=edge)
    axes.set_xlabel(xlabel)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if edge / axes.get_xlim()[0] < 200 else (1.0,)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 20k, 1.5M
    axes.xaxis.set_minor_formatter(NullFormatter())
