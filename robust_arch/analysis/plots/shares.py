"""Robust accuracy against the share of each stage, where networks divide one budget differently."""

from __future__ import annotations

from functools import partial

from matplotlib import rc_context
from matplotlib.figure import Figure

from robust_arch.analysis.networks import Network
from robust_arch.analysis.plots.captions import ROBUST
from robust_arch.analysis.plots.marks import error_bars
from robust_arch.analysis.plots.pooled import Pooled
from robust_arch.analysis.plots.series import by_family, heading
from robust_arch.analysis.plots.style import COLUMN, STYLE, WIDE, letter_panels, new_figure, write_heading

_HEIGHT = 2.5
_MOST_PANELS = 4


@rc_context(STYLE)
def against_shares(found: Pooled) -> Figure:
    """Worst-case accuracy against each stage's share of the stages' parameters, both in percent; one mark per family.

    One panel per stage, the last stage in the last one; for networks of different numbers of stages the last stage
    alone.

    Raises:
        InputError: for an architecture of no known family.
    """
    stages = {len(each.network.shares) for each in found}
    shown = range(*stages) if len(stages) == 1 and max(stages) <= _MOST_PANELS else range(-1, 0)
    figure = new_figure(WIDE if len(shown) > 1 else COLUMN, _HEIGHT)
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False).ravel()
    for axes, stage in zip(panels, shown, strict=True):
        for series in by_family(found, partial(_percent, stage)):
            error_bars(axes, series.marks, series.colour, series.marker, series.label)
        last = stage in (-1, shown[-1])
        axes.set_xlabel(f"Share of {'the last stage' if last else f'stage {stage + 1}'} (%)")
    panels[0].set_ylabel(ROBUST)
    letter_panels(list(panels))
    write_heading(figure, heading(found))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _percent(stage: int, network: Network) -> float:
    return 100 * network.shares[stage]
