"""Allocations of one budget on the triangle of stage shares, with the divisions of two published networks."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from experiments.recorded import comparable
from robust_arch.analysis.plots.simplex import on_simplex
from robust_arch.architectures import PRESETS, cost

STUDIES = ("budget",)
PUBLISHED = {"WRN-34-12": "wrn_34_12", "WRN-34-R": "wrn_34_r"}


def draw(results: Sequence[Path]) -> Figure:
    named = {f"{name}'s division": cost(PRESETS[preset]).shares() for name, preset in PUBLISHED.items()}
    return on_simplex(comparable(results), named)
