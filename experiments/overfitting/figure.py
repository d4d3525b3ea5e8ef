"""Training curves with the best and the last epoch: robust overfitting."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from experiments.recorded import read
from robust_arch.analysis.epochs import read_epochs
from robust_arch.analysis.plots.curves import training_curves

STUDIES = ("overfitting",)


def draw(results: Sequence[Path]) -> Figure:
    return training_curves(read(results), read_epochs(results[0]))
