"""Robust accuracy against parameters and MACs on CIFAR-10 (JPEG), at the best and at the last epoch."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from experiments.recorded import comparable, read
from robust_arch.analysis.groups import groups
from robust_arch.analysis.plots.captions import ROBUST, conditions
from robust_arch.analysis.plots.cost import COSTS, draw_costs
from robust_arch.analysis.plots.pooled import pooled
from robust_arch.analysis.plots.series import Series, mark
from robust_arch.analysis.plots.style import BLUE, ORANGE, STYLE, WIDE, letter_panels, new_figure, write_heading

STUDIES = ("cifar10_capacity",)


@rc_context(STYLE)
def draw(results: Sequence[Path]) -> Figure:
    best = comparable(results[:1])
    (last,) = (group for group in groups(read(results[:1])) if group.is_like(best) and group.checkpoint == "last")
    found = {"best epoch on held-out images": pooled(best), "last epoch": pooled(last)}
    figure = new_figure(WIDE, 2.7)
    for axes, (resource, label) in zip(figure.subplots(1, 2, sharey=True), COSTS.items(), strict=True):
        series = [
            Series(name, [mark(each, float(each.network.row[resource])) for each in measured], *look)
            for (name, measured), look in zip(found.items(), ((BLUE, "o"), (ORANGE, "s")), strict=True)
        ]
        draw_costs(axes, series, label, front=False)
    letter_panels(figure.axes)
    figure.axes[0].set_ylabel(ROBUST)
    write_heading(figure, conditions(pooled(best)))
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
