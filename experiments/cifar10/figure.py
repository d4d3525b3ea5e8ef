"""Robust accuracy against parameters and MACs on CIFAR-10 (JPEG), at the best and at the last epoch."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from experiments.recorded import comparable, read
from robust_arch.analysis.groups import Group, groups
from robust_arch.analysis.plots.cost import against_cost
from robust_arch.analysis.plots.pooled import pooled

STUDIES = ("cifar10_capacity",)


def draw(results: Sequence[Path]) -> Figure:
    best, last = at_best_and_last(results)
    return against_cost(pooled(best), pooled(last))


def at_best_and_last(results: Sequence[Path]) -> tuple[Group, Group]:
    """The rows of the same runs at both checkpoints."""
    best = comparable(results)
    (last,) = (group for group in groups(read(results)) if group.is_like(best) and group.checkpoint == "last")
    return best, last
