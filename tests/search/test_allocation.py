"""Allocation against a search through every grid point there is, with costs counted block by block here."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robust_arch.architectures import ArchSpec, cost
from robust_arch.architectures.family import CostTerms
from robust_arch.errors import InputError
from robust_arch.search import Budget, allocate

SMALL = {"stem_width": 4, "num_classes": 5, "image_shape": (1, 8, 8)}
FULL = {"stem_width": 16, "num_classes": 10, "image_shape": (3, 32, 32)}


def counted(depths, widths, stem_width, num_classes, image_shape):
    """Parameters and MACs, each as (one entry per stage, stem and head). widths: integers or arrays."""
    channels, height, width = image_shape
    params, macs, c_in = [], [], stem_width
    for stage, (depth, c) in enumerate(zip(depths, widths, strict=True)):
        if stage:
            height, width = math.ceil(height / 2), math.ceil(width / 2)
        params.append(0)
        macs.append(0)
        for block in range(depth):
            projected = np.not_equal(c_in, c) | (stage > 0 and block == 0)
            weights = 9 * c_in * c + 9 * c * c + np.where(projected, c_in * c, 0)
            params[-1] = params[-1] + weights + 2 * c_in + 2 * c
            macs[-1] = macs[-1] + weights * height * width
            c_in = c
    stem = 9 * channels * stem_width
    outside_macs = stem * image_shape[1] * image_shape[2] + c_in * num_classes
    return {
        "params": (params, stem + 2 * c_in + c_in * num_classes + num_classes),
        "macs": (macs, outside_macs),
    }


def judged(widths, budget, shares, depths, task):
    """Deviation and distance of widths, and whether they are inside: each an array if the widths are."""
    terms = counted(depths, widths, **task)
    totals = {resource: sum(stages) + outside for resource, (stages, outside) in terms.items()}
    tolerance, inside = Fraction(str(budget.tolerance)), True
    for resource in budget.resources:
        target = getattr(budget, resource)
        miss = np.abs(totals[resource] - target)
        inside = inside & (miss * tolerance.denominator <= target * tolerance.numerator)
    resource = "params" if budget.params is not None else "macs"
    stages = np.stack(np.broadcast_arrays(*terms[resource][0])).astype(float)
    wanted = np.reshape(shares, (3,) + (1,) * (stages.ndim - 1))
    deviation = np.abs(stages / stages.sum(axis=0) - wanted).max(axis=0)
    return deviation, np.abs(totals[resource] / getattr(budget, resource) - 1), inside


def widest(stage, budget, depths, task):
    """No width of this stage can be larger: its 3x3 convolutions of width to width alone use up the budget."""
    bounds = []
    for resource in budget.resources:
        upper = getattr(budget, resource) * (1 + budget.tolerance)
        pixels = 1
        if resource == "macs":
            pixels = math.prod(math.ceil(side / 2**stage) for side in task["image_shape"][1:])
        bounds.append(math.sqrt(upper / (9 * (2 * depths[stage] - 1) * pixels)))
    return int(min(bounds))


def best_of_all(budget, shares, depths, step, task):
    """The smallest deviation of a share in the grid, and the smallest distance of those that have it; None if none."""
    axes = [np.arange(step, widest(stage, budget, depths, task) + 1, step) for stage in range(3)]
    grid = [axis.ravel() for axis in np.meshgrid(*axes)]
    if not grid[0].size:
        return None
    deviation, distance, inside = judged(grid, budget, shares, depths, task)
    if not inside.any():
        return None
    smallest = deviation[inside].min()
    return smallest, distance[inside & (deviation <= smallest + 1e-12)].min()


def check_against_all(budget, shares, depths, step, task):
    """`allocate` finds the best point of the whole grid, and fails exactly where there is none."""
    best = best_of_all(budget, shares, depths, step, task)
    if best is None:
        with pytest.raises(InputError, match=r"search\.budget = "):
            allocate(budget, shares, depths, step, **task)
        return
    spec = allocate(budget, shares, depths, step, **task)
    assert spec == ArchSpec("wide_resnet", depths, spec.widths, stem_width=task["stem_width"])
    assert all(width % step == 0 for width in spec.widths)
    deviation, distance, inside = judged([np.int64(w) for w in spec.widths], budget, shares, depths, task)
    assert inside
    assert (float(deviation), float(distance)) == pytest.approx(best, rel=1e-9, abs=1e-9)


def test_the_costs_counted_here_are_the_published_ones(published):
    # the search below is worth nothing if its own costs are wrong
    rows = published["wide_resnet_cost"]["rows"]
    assert rows
    for row in rows:
        terms = counted(row["depths"], row["widths"], **FULL)
        assert sum(terms["params"][0]) + terms["params"][1] == row["params"]
        assert round((sum(terms["macs"][0]) + terms["macs"][1]) / 1e9, 3) == row["gmacs"]


CASES = {
    "even": (Budget(params=20_000, tolerance=0.05), (1 / 3, 1 / 3, 1 / 3), (1, 1, 1), 2),
    "first stage": (Budget(params=40_000, tolerance=0.02), (0.6, 0.3, 0.1), (1, 2, 1), 2),
    "last stage": (Budget(params=40_000, tolerance=0.02), (0.05, 0.15, 0.8), (2, 1, 1), 2),
    "every integer": (Budget(params=9_000, tolerance=0.001), (0.2, 0.5, 0.3), (1, 1, 2), 1),
    "coarse": (Budget(params=60_000, tolerance=0.3), (0.25, 0.5, 0.25), (2, 2, 2), 8),
    "macs even": (Budget(macs=800_000, tolerance=0.05), (1 / 3, 1 / 3, 1 / 3), (1, 1, 1), 2),
    "macs first stage": (Budget(macs=800_000, tolerance=0.02), (0.6, 0.3, 0.1), (1, 2, 1), 2),
    "macs last stage": (Budget(macs=500_000, tolerance=0.1), (0.1, 0.2, 0.7), (1, 1, 1), 4),
    "both": (Budget(params=24_000, macs=620_000, tolerance=0.1), (0.15, 0.4, 0.45), (1, 1, 1), 2),
    # the shares as asked cost far fewer MACs: what meets both lies away from them
    "both, at odds": (Budget(params=24_000, macs=1_000_000, tolerance=0.05), (0.15, 0.4, 0.45), (1, 1, 1), 2),
    "nothing inside": (Budget(params=20_000, tolerance=0.0001), (0.2, 0.3, 0.5), (1, 1, 1), 16),
    # one point of the whole grid is inside, and it is far from the shares
    "one point": (Budget(params=18_265, tolerance=0.01), (0.64, 0.28, 0.08), (1, 3, 3), 4),
    # the best point lies more than two steps from the widths that would meet the shares exactly
    "macs, lopsided": (Budget(macs=180_034, tolerance=0.2), (8 / 16, 7 / 16, 1 / 16), (3, 1, 1), 2),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_best_of_all_grid_widths_is_found(case):
    check_against_all(*case, SMALL)


def test_the_cases_hold_both_answers():
    found = {name: best_of_all(*case, SMALL) is not None for name, case in CASES.items()}
    assert found == {name: name != "nothing inside" for name in CASES}


@given(
    st.sampled_from(["params", "macs"]),
    st.floats(0, 1),
    st.sampled_from([0.01, 0.05, 0.2]),
    st.tuples(*[st.integers(1, 10)] * 3),
    st.tuples(*[st.integers(1, 3)] * 3),
    st.integers(2, 4),
)
def test_no_grid_point_is_better(resource, size, tolerance, parts, depths, step):
    low, high = {"params": (1_000, 50_000), "macs": (20_000, 600_000)}[resource]
    budget = Budget(**{resource: int(low * (high / low) ** size)}, tolerance=tolerance)
    shares = tuple(part / sum(parts) for part in parts)
    check_against_all(budget, shares, depths, step, SMALL)


def test_shares_of_a_large_budget_get_the_best_of_a_million_grid_points():
    budget, shares, depths = Budget(params=66_500_000), (0.1, 0.5, 0.4), (5, 5, 5)
    spec = allocate(budget, shares=shares, depths=depths, width_step=8)
    found = cost(spec)
    assert 65_170_000 <= found.params <= 67_830_000
    best = best_of_all(budget, shares, depths, 8, FULL)
    deviation = max(abs(part - share) for part, share in zip(found.shares(), shares, strict=True))
    assert deviation == pytest.approx(best[0], rel=1e-9)
    assert abs(found.params / 66_500_000 - 1) == pytest.approx(best[1], rel=1e-9)
    # a step of 8 at some 300 channels moves a stage's cost by 5%, hence its share by some 2 points at most
    assert deviation < 0.02


@pytest.mark.parametrize(
    ("target", "widths"),
    [(50, (10, 20, 20)), (52, (10, 20, 20)), (54, (11, 22, 22)), (55, (11, 22, 22)), (58, (12, 24, 24))],
)
@pytest.mark.parametrize("resource", ["params", "macs"])
def test_of_equal_shares_the_nearer_total_is_chosen(resource, target, widths, monkeypatch):
    # at 10%, both 50 and 55 or both 55 and 60 are inside, with exactly the shares asked for
    # stages cost their width, so widths in the same ratio have equal shares
    def proportional(template, depths, widths, num_classes, image_shape):
        return CostTerms(tuple(widths), tuple(2 * width for width in widths), 0, 0)

    monkeypatch.setattr("robust_arch.search.allocation.cost_terms", proportional)
    budget = Budget(**{resource: target * (2 if resource == "macs" else 1)}, tolerance=0.1)
    assert allocate(budget, (0.2, 0.4, 0.4), (1, 1, 1), 1).widths == widths


def test_parameters_decide_where_both_are_set():
    # both budgets are so wide that the same grid points are inside for either of the shares' meanings
    shares, depths = (0.2, 0.4, 0.4), (1, 1, 1)
    spec = allocate(Budget(params=30_000, macs=700_000, tolerance=0.5), shares, depths, 1, **SMALL)
    params = cost(spec, 5, (1, 8, 8)).shares("params")
    macs = cost(spec, 5, (1, 8, 8)).shares("macs")
    assert max(abs(part - share) for part, share in zip(params, shares, strict=True)) < 0.01
    assert max(abs(part - share) for part, share in zip(macs, shares, strict=True)) > 0.1


BAD_SHARES = [(0.5, 0.5), (0.25,) * 4, (), (0.5, 0.5, 0.1), (0.3, 0.3, 0.3), (1.2, -0.1, -0.1), (0.5, 0.5, 0.0)]
NO_NUMBERS = [(math.nan, 0.5, 0.5), ("many", 0.5, 0.5), 0.5]


@pytest.mark.parametrize("shares", BAD_SHARES + NO_NUMBERS, ids=repr)
def test_bad_shares_are_named(shares):
    with pytest.raises(InputError, match=r"shares = .*3 numbers greater than 0 with sum 1") as raised:
        allocate(Budget(params=1_000_000), shares, (1, 1, 1))
    assert repr(shares) in str(raised.value)


@pytest.mark.parametrize("step", [0, -8, 1.5, True, "8"], ids=repr)
def test_a_bad_step_is_named(step):
    with pytest.raises(InputError, match=r"search\.space\.width_step = .*at least 1") as raised:
        allocate(Budget(params=1_000_000), (0.2, 0.3, 0.5), (1, 1, 1), step)
    assert repr(step) in str(raised.value)


@pytest.mark.parametrize(
    "budget", [Budget(params=400), Budget(params=1), Budget(macs=400_000), Budget(macs=1)], ids=str
)
def test_a_budget_below_stem_and_head_is_named(budget):
    # the stem alone has 432 parameters and 442,368 MACs
    with pytest.raises(InputError, match=r"search\.budget = .*no widths") as raised:
        allocate(budget, (0.2, 0.3, 0.5), (1, 1, 1), 1)
    assert str(budget) in str(raised.value)


def test_a_step_that_skips_the_budget_is_named():
    # 16-16-16 is the smallest point of the grid and costs more
    budget, shares = Budget(params=10_000), (0.2, 0.3, 0.5)
    with pytest.raises(InputError, match=r"search\.budget = 10,000 parameters.*steps of 16.*smaller step"):
        allocate(budget, shares, (1, 1, 1), 16)
    assert cost(allocate(budget, shares, (1, 1, 1), 1)).params == pytest.approx(10_000, rel=0.02)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"budget": Budget()}, r"search\.budget = .*params or macs"),
        ({"depths": (1, 1)}, r"arch\.depths"),
        ({"depths": (1, 0, 1)}, r"arch\.depths"),
        ({"depths": (10**20, 1, 1)}, "depths = 100000000000000000000"),
        ({"width_step": 10**30}, r"search\.space\.width_step"),
        ({"stem_width": 10**20}, r"arch\.stem_width"),
        ({"budget": Budget(params=10**17)}, r"search\.budget: a cost of .* needs a stage wider than 16,777,216"),
    ],
)
def test_what_cannot_be_counted_is_refused(change, key):
    asked = {"budget": Budget(params=20_000), "shares": (0.2, 0.3, 0.5), "depths": (1, 1, 1), "width_step": 8}
    with pytest.raises(InputError, match=key):
        allocate(**{**asked, **change})
