"""Robust accuracy against parameters and MACs our networks above, published ones below."""

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure, SubFigure

from experiments import published
from experiments.recorded import comparable, read
from robust_arch.analysis.plots.captions import ROBUST, conditions
from robust_arch.analysis.plots.cost import COSTS, draw_costs
from robust_arch.analysis.plots.marks import Mark, write_labels
from robust_arch.analysis.plots.outliers import Extent, set_aside
from robust_arch.analysis.plots.pooled import Pooled, pooled
from robust_arch.analysis.plots.series import Series, mark
from robust_arch.analysis.plots.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    STYLE,
    WIDE,
    letter_panels,
    new_figure,
    write_heading,
)

STUDIES = ("capacity", "stage_width", "stage_depth", "last_stage", "budget")
RULES = {"depth": (BLUE, "o"), "width": (ORANGE, "s"), "both": (GREEN, "D")}


@rc_context(STYLE)
def draw(results: Sequence[Path]) -> Figure:
    figure = new_figure(WIDE, 5.2)
    grid = figure.add_gridspec(2, 1)
    above, below = figure.add_subfigure(grid[0, 0]), figure.add_subfigure(grid[1, 0])
    found = pooled(comparable(results))
    _panels(above, lambda resource: ours(found, set(read(results[:1])["arch"]), resource))
    for axes, resource in zip(above.axes, COSTS, strict=True):
        set_aside(axes, Extent.at([float(each.network.row[resource]) for each in found]), Extent.of(found))
    _head(above, conditions(found), ROBUST)
    _panels(below, theirs)
    letter_panels([*above.axes, *below.axes])
    _head(below, f"CIFAR-10 test set, published, {THREAT}; other data and networks than above", "PGD-20 accuracy (%)")
    for axes, resource in zip(below.axes, COSTS, strict=True):
        write_labels(axes, [mark for series in theirs(resource) for mark in series.marks], fontsize=6, leaders=True)
    return figure


THREAT = r"$\ell_\infty$ $\epsilon$=8/255"


def ours(found: Pooled, first: set[str], resource: str) -> list[Series]:
    """The networks of the first study, and those of the others."""
    scaled, others = (
        [mark(each, float(each.network.row[resource])) for each in found if (each.network.arch in first) is inside]
        for inside in (True, False)
    )
    return [
        Series("one stage changed, or a budget divided otherwise", others, GREY, ".", width=0.4),
        Series("all stages scaled together", scaled, BLUE, "o"),
    ]


def theirs(resource: str) -> list[Series]:
    """Published networks by how they were scaled; their intervals are not published."""
    rows = list(published.scaled())
    series = [
        Series(f"scaled by {rule}", [_point(row, resource) for row in rows if row.rule == rule], *style)
        for rule, style in RULES.items()
    ]
    return [
        *series,
        Series("WideResNets as named", [_point(row, resource) for row in published.uniform()], PURPLE, "^"),
    ]


def _point(row: published.Scaled, resource: str) -> Mark:
    return Mark(getattr(row.cost, resource), row.pgd20, row.pgd20, row.pgd20, row.name)


def _panels(part: SubFigure, series: Callable[[str], Sequence[Series]]) -> None:
    for axes, (resource, label) in zip(part.subplots(1, 2, sharey=True), COSTS.items(), strict=True):
        draw_costs(axes, series(resource), label)


def _head(part: SubFigure, title: str, ylabel: str) -> None:
    write_heading(part, title)
    part.axes[0].set_ylabel(ylabel)
    part.legend(*part.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
