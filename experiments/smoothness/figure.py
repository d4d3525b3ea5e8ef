"""Robust accuracy against how smooth a network is: perturbation stability and the local Lipschitz constant."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from experiments.recorded import comparable
from robust_arch.analysis.networks import networks
from robust_arch.analysis.plots.captions import ROBUST, conditions
from robust_arch.analysis.plots.scatter import draw_scatter, rank_title
from robust_arch.analysis.plots.style import STYLE, WIDE, new_figure

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
        draw_scatter(axes, found, name, "worst_case_acc", label, "")
        axes.set_title(rank_title(found, name, "worst_case_acc"))
    figure.axes[0].set_ylabel(ROBUST)
    figure.suptitle(conditions(group, found), fontsize=7, x=0.01, ha="left")
    return figure
