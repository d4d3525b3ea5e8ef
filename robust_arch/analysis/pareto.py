"""Which networks are not beaten: nothing costs less and is at least as robust."""

from __future__ import annotations

from collections.abc import Sequence


def pareto_front(costs: Sequence[float], accuracies: Sequence[float]) -> list[int]:
    """Positions of the non-dominated points, by increasing cost.

    A point is dominated if another costs at most as much and is at least as accurate, and is better in one of the two.
    Equal points do not dominate one another.
    """
    pairs = list(zip(costs, accuracies, strict=True))
    front = [place for place, pair in enumerate(pairs) if not any(_dominates(other, pair) for other in pairs)]
    return sorted(front, key=lambda place: pairs[place])


def _dominates(first: tuple[float, float], second: tuple[float, float]) -> bool:
    return first != second and first[0] <= second[0] and first[1] >= second[1]
