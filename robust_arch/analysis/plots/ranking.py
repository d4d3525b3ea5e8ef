"""All architectures by rank, and how the best and the worst quarter divide their cost over stages."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robust_arch.analysis.groups import Group
from robust_arch.analysis.networks import by_rank, quarters
from robust_arch.analysis.plots.captions import ROBUST, conditions
from robust_arch.analysis.plots.marks import draw_runs
from robust_arch.analysis.plots.pooled import Measurement, pooled
from robust_arch.analysis.plots.series import mark
from robust_arch.analysis.plots.style import BLUE, GREY, ORANGE, STYLE, WIDE, letter_panels, new_figure, write_heading

_HEIGHT = 3.5
_NAMED = 30  # more names than that would overlap
_BARS = "a: bars are the interval named above. By stage: mean and standard deviation over a quarter's networks (dots)"
_SIDE = 0.13  # distance of the two quarters from a stage's tick


@rc_context(STYLE)
def best_against_worst(group: Group) -> Figure:
    """Ranks with 95% intervals on the left; shares (%), widths and depths of both quarters by stage on the right.

    On the right each dot is a network, each larger mark a mean, and its bar one standard deviation over networks.
    The panel of depths is left out if all networks have the same depths.
    """
    measured = pooled(group)
    found = [each.network for each in measured]
    best, worst = quarters(found)
    percents = [[tuple(100 * share for share in n.shares) for n in side] for side in (best, worst)]
    panels: list[tuple[str, list[list[tuple[float, ...]]]]] = [
        ("Share of the stages' parameters (%)", percents),
        ("Width (channels)", [[n.spec.widths for n in side] for side in (best, worst)]),
        ("Depth (blocks)", [[n.spec.depths for n in side] for side in (best, worst)]),
    ]
    if len({network.spec.depths for network in found}) == 1:
        panels.pop()
    figure = new_figure(WIDE, _HEIGHT)
    ranks, *rest = figure.subplots(1, 1 + len(panels), width_ratios=[1.5, *(1 for _ in panels)])
    by_name = {each.network.arch: each for each in measured}
    _ranks(ranks, [by_name[network.arch] for network in by_rank(found)], len(best))
    for axes, (label, sides) in zip(rest, panels, strict=True):
        _by_stage(axes, label, sides, len(found))
    letter_panels(figure.axes)
    write_heading(figure, conditions(measured))
    figure.legend(*rest[0].get_legend_handles_labels(), title=_BARS, loc="outside lower center", ncols=2)
    return figure


def _ranks(axes: Axes, ranked: Sequence[Measurement], size: int) -> None:
    for place, each in enumerate(ranked, start=1):
        colour, marker = (BLUE, "o") if place <= size else (ORANGE, "s") if place > len(ranked) - size else (GREY, ".")
        spread = [[each.mean - each.low], [each.high - each.mean]]
        axes.errorbar([each.mean], [place], xerr=spread, fmt=marker, color=colour, elinewidth=0.8)
        draw_runs(axes, [mark(each, place)], colour, sideways=True)
    axes.invert_yaxis()
    axes.set_xlabel(ROBUST)
    if len(ranked) <= _NAMED:
        names = [each.network.spec.widths_text for each in ranked]
        axes.set_yticks(range(1, len(ranked) + 1), names, fontsize=6)
        axes.set_ylabel("Widths, by rank")
    else:
        axes.set_ylabel("Rank")


def _by_stage(axes: Axes, label: str, sides: Sequence[Sequence[tuple[float, ...]]], count: int) -> None:
    styles = ((BLUE, "o", -_SIDE, "best"), (ORANGE, "s", _SIDE, "worst"))
    for values, (colour, marker, offset, name) in zip(sides, styles, strict=True):
        stages = list(zip(*values, strict=True))
        xs = [stage + offset for stage in range(1, len(stages) + 1)]
        for x, stage in zip(xs, stages, strict=True):
            axes.plot([x] * len(stage), stage, ".", color=colour, alpha=0.35, ms=4)
        means = [fmean(stage) for stage in stages]
        spread = [stdev(stage) if len(stage) > 1 else 0.0 for stage in stages]
        text = f"{name} quarter: {len(values)} of {count} networks"
        axes.errorbar(xs, means, yerr=spread, fmt=marker, color=colour, elinewidth=0.9, ms=5, label=text)
    axes.set_xticks(range(1, len(stages) + 1))
    axes.set_xlim(0.5, len(stages) + 0.5)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("Stage")
    axes.set_ylabel(label)
