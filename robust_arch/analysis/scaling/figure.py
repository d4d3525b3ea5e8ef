"""The figure of a scaling law: robust error against size or images seen, both logarithmic, with held-out points."""

from __future__ import annotations

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from robust_arch.analysis.plots.style import BAND, BLUE, GREEN, GREY, ORANGE, STYLE, WIDE, new_figure
from robust_arch.analysis.scaling.estimates import FURTHER, Scaling
from robust_arch.analysis.scaling.laws import FORMS

_COLOURS = dict(zip(FORMS, (GREY, BLUE, GREEN), strict=True))
_LABELS = {"params": "Parameters", "macs": "Multiply-accumulates per image"}
_STEPS = 120


def law_figure(found: Scaling) -> Figure:
    """One panel per variable that differs; lines are fits without the hollow points, which they predict.

    A line takes the other variable at its largest value; the band is the 95% interval of the form `plateau`, from all
    points.
    """
    varies = found.points.varies
    with rc_context(STYLE):
        figure = new_figure(WIDE, 2.6)
        axes = figure.subplots(1, sum(varies), squeeze=False, sharey=True).ravel()
        for each, place in zip(axes, np.flatnonzero(varies), strict=True):
            _panel(each, found, int(place))
        axes[0].set_ylabel("Robust error (%)")
        axes[0].legend()
    return figure


def _panel(axes: Axes, found: Scaling, place: int) -> None:
    points = found.points
    x = (points.size, points.images)[place]
    other = (points.images, points.size)[place].max()
    grid = np.geomspace(x.min(), FURTHER * x.max(), _STEPS)
    arguments = (grid, np.full(_STEPS, other)) if place == 0 else (np.full(_STEPS, other), grid)
    drawn = np.array([law.error(*arguments) for law in found.laws["plateau"].draws])
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    axes.fill_between(grid, 100 * low, 100 * high, color=BAND, lw=0)
    for form in FORMS:
        law = found.laws[form].without_largest or found.laws[form].law
        axes.plot(grid, 100 * law.error(*arguments), color=_COLOURS[form], label=form)
    for chosen, fill, label in ((~found.held_out, ORANGE, "fitted"), (found.held_out, "none", "held out")):
        axes.plot(
            x[chosen], 100 * points.error[chosen], "o", color=ORANGE, markerfacecolor=fill, ms=3, ls="", label=label
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    images = "Training images seen" if points.per_epoch else "Epochs"
    axes.set_xlabel(_LABELS[points.resource] if place == 0 else images)
