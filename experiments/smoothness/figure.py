"""Robust accuracy against how smooth a network is: perturbation stability and the local Lipschitz constant."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from experiments.recorded import comparable
from robust_arch.analysis.networks import networks
from robust_arch.analysis.plots.captions import ROBUST, conditions
from robust_arch.analysis.plots.pooled import pooled
from robust_arch.analysis.plots.scatter import draw_scatter, rank_title
from robust_arch.analysis.plots.style import STYLE, WIDE, letter_panels, new_figure, write_heading

STUDIES = ("budget", "capacity", "stage_width", "stage_depth", "last_stage")
MEASURES = {
    "stability": "Predictions unchanged under PGD-20 (%)",
    "lipschitz": r"Local Lipschitz constant ($\ell_1$ of logits / $\ell_\infty$)",
}


@rc_context(STYLE)
def draw(results: Sequence[Path]) -> Figure:
    group = comparable(results)
    found = networks(group, ("worst_case_acc", *MEASURES))
    figure = new_figure(WIDE, 2.7)
    for axes, (name, label) in zip(figure.subplots(1, 2, sharey=True), MEASURES.items(), strict=True):
        draw_scatter(axes, group, name, "worst_case_acc", label, "")
        axes.set_title(rank_title(found, name, "worst_case_acc"))
    figure.axes[0].set_ylabel(ROBUST)
    letter_panels(figure.axes)
    write_heading(figure, conditions(pooled(group, also=tuple(MEASURES))))
    return figure
