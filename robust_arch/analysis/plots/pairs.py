"""Pairs of networks that differ in their last stage: the smaller one minus the larger one."""

from __future__ import annotations

from statistics import mode

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robust_arch.analysis.claims.differences import Contrast, Pairs
from robust_arch.analysis.claims.last_stage import pairs_kept, pairs_refilled
from robust_arch.analysis.claims.measured import RESOURCES, Measured, measured
from robust_arch.analysis.formatting import counted
from robust_arch.analysis.groups import Group
from robust_arch.analysis.plots.captions import conditions
from robust_arch.analysis.plots.marks import Mark, draw_runs
from robust_arch.analysis.plots.pooled import pooled
from robust_arch.analysis.plots.style import BLUE, GREY, ORANGE, STYLE, WIDE, letter_panels, new_figure, write_heading
from robust_arch.architectures import ArchSpec
from robust_arch.errors import InputError

MOST_PAIRS = 16
_ROW, _REST = 0.17, 1.45  # inches: of a pair, and of everything else


def kinds_of_pairs(group: Group) -> tuple[Measured, dict[str, Pairs]]:
    """The most frequent kind of architecture in a group, and its pairs: the others kept, and grown to an equal cost.

    Raises:
        InputError: for an architecture of no known family.
    """
    found = next(iter(measured(group.rows).values()))
    if not found.specs:
        return found, {}
    kinds = {"others kept": pairs_kept(found)}
    for resource, name in RESOURCES.items():
        if len(kinds) == 1 and len(grown := pairs_refilled(found, resource)):  # of one resource: that of the budget
            kinds[f"others grown, equal {name}"] = grown
    return found, {kind: pairs for kind, pairs in kinds.items() if len(pairs)}


@rc_context(STYLE)
def smaller_last_stage(group: Group) -> Figure:
    """Differences in worst-case accuracy in points, one row per pair and one for their mean; one panel per kind.

    Raises:
        InputError: without such pairs, or for an architecture of no known family.
    """
    found, kinds = kinds_of_pairs(group)
    if not kinds:
        raise InputError(f"results: no two networks of {group} differ in the last stage alone, or at an equal cost")
    rows = {kind: _fewer(pairs) for kind, pairs in kinds.items()}
    figure = new_figure(WIDE, _REST + _ROW * max(len(pairs) + 1 for pairs in rows.values()))
    for axes, (kind, pairs) in zip(
        figure.subplots(1, len(kinds), squeeze=False, sharex=True).flat, kinds.items(), strict=True
    ):
        _panel(axes, group.rows, found, rows[kind], pairs)
        axes.set_title(f"{kind[0].upper()}{kind[1:]}")
    letter_panels(figure.axes)
    depths = "-".join(map(str, _usual_depths(found)))
    write_heading(figure, f"{conditions(pooled(group))}; depths {depths} unless named")
    return figure


def _fewer(pairs: Pairs) -> Pairs:
    """All pairs; of too many those with the network that is most often the larger one; of still too many none."""
    first, second = pairs.first, pairs.second
    if len(first) > MOST_PAIRS:
        values, counts = np.unique(second, return_counts=True)
        own = second == values[np.argmax(counts)]
        first, second = first[own], second[own]
    return Pairs(first[:0], second[:0]) if len(first) > MOST_PAIRS else Pairs(first, second)


def _panel(axes: Axes, rows: pd.DataFrame, found: Measured, shown: Pairs, pairs: Pairs) -> None:
    # without recorded seeds no two runs belong together
    runs = rows.pivot_table("worst_case_acc", "arch", "seed").reindex(list(found.names))
    labels, usual = [], _usual_depths(found)
    for place, (first, second) in enumerate(zip(shown.first, shown.second, strict=True)):
        own = Pairs(np.array([first]), np.array([second]))
        seeds = (runs.loc[found.names[first]] - runs.loc[found.names[second]]).dropna()
        _row(axes, place, found, own, BLUE, "o", tuple(seeds))
        labels.append(_name(found.specs[second], found.specs[first], usual))
    _row(axes, len(labels), found, pairs, ORANGE, "s", ())
    labels.append(f"mean of {counted(len(pairs), 'pair')}")
    axes.axvline(0, color=GREY, lw=0.8, zorder=1)
    axes.set_yticks(range(len(labels)), labels, fontsize=6)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xlabel("Robust accuracy, last stage\nsmaller minus larger (points)")


def _row(
    axes: Axes, place: int, found: Measured, pairs: Pairs, colour: str, marker: str, seeds: tuple[float, ...]
) -> None:  # fmt: skip
    """The mean difference of the pairs with its interval, if the noise is known, and those of single seeds."""
    means = found.model.values  # noqa: PD011  (of the model, not of a table)
    value = float((means[pairs.first] - means[pairs.second]).mean())
    low = high = value
    if found.model.sigma is not None:
        seen = Contrast(found, pairs).difference()
        low, high = seen.low, seen.high
    axes.errorbar([value], [place], xerr=[[value - low], [high - value]], fmt=marker, color=colour, elinewidth=0.8)
    draw_runs(axes, [Mark(place, value, low, high, runs=seeds)], colour, sideways=True)


def _usual_depths(found: Measured) -> tuple[int, ...]:
    return mode(spec.depths for spec in found.specs)


def _name(larger: ArchSpec, smaller: ArchSpec, usual: tuple[int, ...]) -> str:
    """Both networks by their widths, with their depths if one of them has not the usual ones."""
    named = [
        spec.widths_text if larger.depths == smaller.depths == usual else f"{spec.depths_text}, {spec.widths_text}"
        for spec in (larger, smaller)
    ]
    return " \N{RIGHTWARDS ARROW} ".join(named)
