"""Clean against robust accuracy: our networks on the left, published ones on the right."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import published
from experiments.recorded import comparable
from robust_arch.analysis.networks import networks
from robust_arch.analysis.plots.captions import ROBUST, conditions
from robust_arch.analysis.plots.marks import Mark, error_bars, write_labels
from robust_arch.analysis.plots.pooled import pooled
from robust_arch.analysis.plots.scatter import draw_scatter, rank_title
from robust_arch.analysis.plots.style import GREEN, ORANGE, STYLE, WIDE, letter_panels, new_figure, write_heading

STUDIES = ("capacity", "budget", "stage_width", "stage_depth", "last_stage")
CLEAN = "Clean accuracy (%)"


@rc_context(STYLE)
def draw(results: Sequence[Path]) -> Figure:
    group = comparable(results)
    found = networks(group, ("worst_case_acc", "clean_acc"))
    figure = new_figure(WIDE, 3.4)
    left, right = figure.subplots(1, 2)
    draw_scatter(left, group, "clean_acc", "worst_case_acc", CLEAN, ROBUST)
    left.set_title(f"{group.rows.iloc[0]['data']}: {rank_title(found, 'clean_acc', 'worst_case_acc')}")
    marks = _published(right)
    figure.legend(loc="outside lower right", ncols=2)
    letter_panels([left, right])
    write_heading(figure, f"a: {conditions(pooled(group, also=('clean_acc',)))}")
    write_labels(right, marks, fontsize=6, leaders=True)
    return figure


def _published(axes: Axes) -> list[Mark]:
    """AutoAttack accuracies of the literature, their labels not yet written."""
    rows = [(row["name"], row["cifar10"]) for row in published.comparison()]
    plain = [_mark(name, row["clean"], row["autoattack"]) for name, row in rows]
    more = [
        _mark(row["arch"] + (", EMA" if row["ema"] else ""), row["clean"], row["autoattack"])
        for row in published.leaderboard()
    ]
    error_bars(axes, plain, ORANGE, "s", "TRADES")
    error_bars(axes, more, GREEN, "D", "TRADES, 500k images more")
    axes.set_title(r"CIFAR-10, published, $\ell_\infty$ $\epsilon$=8/255")
    axes.set_xlabel(CLEAN)
    axes.set_ylabel("AutoAttack accuracy (%)")
    axes.margins(x=0.4, y=0.12)
    return [*more, *plain]


def _mark(name: str, clean: float, robust: float) -> Mark:
    return Mark(clean, robust, robust, robust, name)
