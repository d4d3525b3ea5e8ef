"""All allocations of one budget by rank, and what the best and the worst quarter spend on each stage."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from experiments.recorded import comparable
from robust_arch.analysis.plots.ranking import best_against_worst

STUDIES = ("budget",)


def draw(results: Sequence[Path]) -> Figure:
    return best_against_worst(comparable(results))
