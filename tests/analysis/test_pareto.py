"""The front against hand-checked cases and against its definition, tried on every pair."""

from hypothesis import given
from hypothesis import strategies as st

from robust_arch.analysis.pareto import pareto_front

POINTS = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), max_size=12)


def test_a_front_by_hand() -> None:
    # 1: 40 for 10; 0: 50 for 20 beats 2 (45 for 20) and 4 (50 for 30); 3: 60 for 40
    assert pareto_front([20, 10, 20, 40, 30], [50, 40, 45, 60, 50]) == [1, 0, 3]


def test_equal_points_are_all_on_the_front_and_no_points_have_none() -> None:
    assert pareto_front([1, 1, 2], [5, 5, 4]) == [0, 1]
    assert pareto_front([], []) == []


@given(POINTS)
def test_the_best_accuracy_for_each_cost_rises_along_the_front(points: list[tuple[int, int]]) -> None:
    front = [points[place] for place in pareto_front([x for x, _ in points], [y for _, y in points])]
    # another way to it: over costs in order, the best of each cost where it beats all that are cheaper
    expected: list[tuple[int, int]] = []
    for cost in sorted({x for x, _ in points}):
        best = max(y for x, y in points if x == cost)
        if not expected or best > expected[-1][1]:
            expected += [(cost, best)] * points.count((cost, best))
    assert front == expected
