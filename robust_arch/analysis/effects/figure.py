"""The figure of main effects: one panel per stage variable, one for the costs."""

from __future__ import annotations

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robust_arch.analysis.effects.estimates import Curve, Effects
from robust_arch.analysis.plots.style import BAND, BLUE, GREY, ORANGE, STYLE, WIDE, new_figure

_PER_ROW = 3
_LABELS = {
    "MACs at equal parameters": "MACs x2",
    "parameters at equal MACs": "parameters x2",
    "smaller last stage at equal parameters": "share -0.1",
    "parameters, whatever else differs": "size x2",
}


def main_effects(found: Effects) -> Figure:
    """Main effects with their 95% intervals, all on one scale of points; the last panel has the costs."""
    panels = len(found.curves) + bool(found.paths)
    rows = max(1, -(-panels // _PER_ROW))
    with rc_context(STYLE):
        figure = new_figure(WIDE, 1.9 * rows)
        axes = figure.subplots(rows, min(_PER_ROW, max(panels, 1)), squeeze=False, sharey=True).ravel()
        for each, (name, curve) in zip(axes, found.curves.items(), strict=False):
            _curve(each, name, curve)
        if found.paths:
            _costs(axes[len(found.curves)], found)
        for each in axes[panels:]:
            each.set_axis_off()
        for each in axes[::_PER_ROW]:
            each.set_ylabel("Robust accuracy (points)")
    return figure


def _curve(axes: Axes, name: str, curve: Curve) -> None:
    axes.fill_between(curve.levels, curve.low, curve.high, color=BAND, lw=0)
    axes.plot(curve.levels, curve.values, color=BLUE, marker="o")
    axes.axhline(0, color=GREY, lw=0.6)
    axes.set_xscale("log", base=2)
    axes.set_xticks(curve.levels, [str(level) for level in curve.levels])
    axes.minorticks_off()
    axes.set_xlabel(f"{name[0].upper()}{name[1:]}")


def _costs(axes: Axes, found: Effects) -> None:
    for shift, colour, label in ((-0.1, ORANGE, "all else equal"), (0.1, BLUE, "in all")):
        chosen = [path.own if label == "all else equal" else path.total for path in found.paths.values()]
        values = np.array([[each.value, each.low, each.high] for each in chosen]).T
        places = np.arange(len(chosen)) + shift
        spread = [values[0] - values[1], values[2] - values[0]]
        axes.errorbar(places, values[0], yerr=spread, fmt="o", color=colour, label=label)
    axes.axhline(0, color=GREY, lw=0.6)
    axes.set_xticks(range(len(found.paths)), [_LABELS[name] for name in found.paths], fontsize="small")
    axes.set_xlim(-0.6, len(found.paths) - 0.4)
    axes.legend()
