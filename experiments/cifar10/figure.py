"""Robust accuracy against parameters and MACs on CIFAR-10 (JPEG), at the best and at the last epoch."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from experiments.recorded import comparable, read
from robust_arch.analysis.groups import Group, at_last
from robust_arch.analysis.plots.cost import against_cost
from robust_arch.analysis.plots.pooled import pooled
from robust_arch.errors import invalid

STUDIES = ("cifar10_capacity",)


def draw(results: Sequence[Path]) -> Figure:
    best, last = map(pooled, at_best_and_last(results))
    return against_cost(best, last)


def at_best_and_last(results: Sequence[Path]) -> tuple[Group, Group]:
    """The rows of the same runs at both checkpoints.

    Raises:
        InputError: if one of them is missing.
    """
    best = comparable(results)
    if (last := at_last(read(results), best)) is None:
        raise invalid("results", [str(path) for path in results], "runs that were evaluated at last too")
    return best, last
