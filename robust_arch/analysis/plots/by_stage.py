"""Robust accuracy when one stage alone is made wider, narrower, deeper or shallower."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from robust_arch.analysis.groups import Group
from robust_arch.analysis.networks import Quantity, base_network, one_stage_changed
from robust_arch.analysis.plots.captions import ROBUST, conditions
from robust_arch.analysis.plots.marks import error_bars
from robust_arch.analysis.plots.pooled import Measurement, pooled
from robust_arch.analysis.plots.series import mark
from robust_arch.analysis.plots.style import BAND, BLUE, ORANGE, STYLE, WIDE, letter_panels, new_figure, write_heading
from robust_arch.errors import InputError

_HEIGHT = 2.35
_LABELS = {"widths": "Width of stage {} (channels)", "depths": "Depth of stage {} (blocks)"}


@rc_context(STYLE)
def against_stage(group: Group, quantity: Quantity) -> Figure:
    """One panel per stage: worst-case accuracy in percent against its width or depth; other stages as in the base.

    Raises:
        InputError: if no network differs from the base in one stage's `quantity` alone.
    """
    found = pooled(group)
    measured = {each.network.arch: each for each in found}
    alone = [each.network for each in found]
    base = base_network(alone)
    panels = [
        [measured[network.arch] for network in one_stage_changed(alone, stage, quantity)]
        for stage in range(len(base.spec.widths))
    ]
    if max(map(len, panels)) < 2:
        raise InputError(f"results: no network differs from {base.arch} in the {quantity} of one stage alone")
    figure = new_figure(WIDE, _HEIGHT)
    for stage, axes in enumerate(figure.subplots(1, len(panels), sharey=True)):
        _panel(axes, panels[stage], measured[base.arch], stage, quantity)
    letter_panels(figure.axes)
    figure.axes[0].set_ylabel(ROBUST)
    write_heading(figure, conditions(found))
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _panel(axes: Axes, shown: Sequence[Measurement], base: Measurement, stage: int, quantity: Quantity) -> None:
    values = [int(getattr(each.network.spec, quantity)[stage]) for each in shown]
    marks = [mark(each, x) for x, each in zip(values, shown, strict=True)]
    axes.axhspan(base.low, base.high, color=BAND, lw=0, label="interval of the base network", zorder=0)
    axes.plot(values, [each.mean for each in shown], color=BLUE, lw=0.6, alpha=0.6)
    own = [each is base for each in shown].index(True)
    error_bars(axes, marks[:own] + marks[own + 1 :], BLUE, "o", "one stage changed")
    spec = base.network.spec
    error_bars(axes, [marks[own]], ORANGE, "s", f"base (depths, widths): {spec.depths_text}, {spec.widths_text}")
    axes.set_xlabel(_LABELS[quantity].format(stage + 1))
    if quantity == "widths":
        axes.set_xscale("log", base=2)
    axes.set_xticks(values, [str(value) for value in values])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.12)
