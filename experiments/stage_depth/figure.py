"""Robust accuracy against the depth of each stage."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from experiments.recorded import comparable
from robust_arch.analysis.plots.by_stage import against_stage

STUDIES = ("stage_depth",)


def draw(results: Sequence[Path]) -> Figure:
    return against_stage(comparable(results), "depths")
