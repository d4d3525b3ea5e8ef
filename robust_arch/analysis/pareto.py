"""The Pareto front of cost and accuracy."""

from __future__ import annotations

from collections.abc import Sequence


def pareto_front(costs: Sequence[float], accuracies: Sequence[float]) -> list[int]:
    """Positions of the non-dominated points, by increasing cost.

    A point is dominated if another costs at most as much and is at least as accurate, and is better in one of the two.
    Equal points do not dominate one another.
    """
    points = list(zip(costs, accuracies, strict=True))
    front: list[int] = []
    for place in sorted(range(len(points)), key=lambda place: (points[place][0], -points[place][1])):
        if not front or points[place] == points[front[-1]] or points[place][1] > points[front[-1]][1]:
            front.append(place)
    return front
