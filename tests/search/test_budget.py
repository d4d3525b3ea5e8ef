import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robust_arch.architectures import Cost
from robust_arch.errors import InputError
from robust_arch.search import Budget


@pytest.mark.parametrize(("cost", "inside"), [(97, False), (98, True), (100, True), (102, True), (103, False)])
@pytest.mark.parametrize("resource", ["params", "macs"])
def test_the_boundary_is_inside(resource, cost, inside):
    # floating point would leave out the edges: abs(98 / 100 - 1) > 0.02
    budget = Budget(**{resource: 100}, tolerance=0.02)
    assert bool(budget.contains(**{"params": 1, "macs": 1, resource: cost})) is inside


@pytest.mark.parametrize(
    ("target", "tolerance", "bounds"),
    [
        (66_500_000, 0.02, (65_170_000, 67_830_000)),
        (100, 0, (100, 100)),
        (7, 0.1, (7, 7)),  # 6.3 to 7.7
        (1_000, 0.0015, (999, 1_001)),  # 998.5 to 1001.5
        (3, 0.999, (1, 5)),  # 0.003 to 5.997
        (19_132_765_184, 1e-10, (19_132_765_183, 19_132_765_185)),  # 1.9 on each side
    ],
)
def test_bounds_are_the_smallest_and_largest_integers_inside(target, tolerance, bounds):
    assert Budget(params=target, tolerance=tolerance).bounds("params") == bounds


@given(st.integers(1, 10**10), st.sampled_from([1, 100]), st.integers(0, 99), st.integers(-3, 3))
def test_inside_agrees_with_exact_fractions(size, unit, percent, beside):
    target = size * unit  # with hundreds the edges are integers, and whoever rounds loses one
    budget = Budget(macs=target, tolerance=percent / 100)
    for edge in (target * (100 - percent) // 100, target * (100 + percent) // 100):
        cost = max(0, edge + beside)
        inside = abs(Fraction(cost, target) - 1) <= Fraction(percent, 100)
        assert bool(budget.contains(5, cost)) is inside


def test_both_resources_must_hold_and_null_drops_one():
    both = Budget(params=100, macs=1_000)
    params, macs = np.array([98, 97, 102, 100, 98]), np.array([1_020, 1_020, 980, 979, 1_021])
    assert both.contains(params, macs).tolist() == [True, False, True, False, False]
    for budget, resources, inside in (
        (both, ("params", "macs"), False),
        (Budget(params=100, macs=None), ("params",), True),
        (Budget(params=None, macs=1_000), ("macs",), False),
        (Budget(), (), True),
    ):
        assert (budget.resources, bool(budget.contains(100, 5_000))) == (resources, inside)


def test_a_whole_number_in_scientific_notation_is_an_integer():
    # YAML reads 1e6 as a floating-point number
    budget = Budget(params=1e6)
    assert budget == Budget(params=1_000_000)
    assert isinstance(budget.params, int)


BAD = [
    (key, value) for key in ("params", "macs") for value in (0, -5, 1.5, True, "66M", "66", math.nan, math.inf, [100])
]
BAD += [("tolerance", value) for value in (-0.01, 1, 1.0, math.nan, "much", None)]


@pytest.mark.parametrize(("key", "value"), BAD, ids=str)
def test_bad_values_are_named(key, value):
    allowed = "at least 0 and below 1" if key == "tolerance" else "at least 1"
    with pytest.raises(InputError, match=rf"search\.budget\.{key} = .*{allowed}") as raised:
        Budget(**{"params": 100, key: value})
    assert repr(value) in str(raised.value)


@pytest.mark.parametrize(
    ("budget", "cost", "reason"),
    [
        (Budget(params=100, macs=1_000), (102, 980), ""),
        (Budget(params=100, macs=1_000), (103, 980), "params 3.0% over"),
        (Budget(params=100, macs=1_000), (102, 500), "macs 50.0% under"),
        (Budget(params=100, macs=1_000), (250, 123), "params 150.0% over, macs 87.7% under"),
        (Budget(macs=1_000), (250, 1_123), "macs 12.3% over"),
        (Budget(), (250, 1_123), ""),
    ],
)
def test_the_reason_names_resource_distance_and_direction(budget, cost, reason):
    assert budget.reason(Cost(*cost, (), ())) == reason


@pytest.mark.parametrize(
    ("budget", "text"),
    [
        (Budget(params=66_500_000), "66,500,000 parameters ±2%"),
        (Budget(macs=9_582_000_000, tolerance=0.005), "9,582,000,000 MACs ±0.5%"),
        (Budget(params=1_200, macs=34_000), "1,200 parameters and 34,000 MACs ±2%"),
        (Budget(), "no budget"),
    ],
)
def test_a_budget_reads_as_text(budget, text):
    assert str(budget) == text


@pytest.mark.parametrize("resource", ["params", "macs"])
def test_a_budget_too_large_to_be_counted_is_refused(resource):
    assert getattr(Budget(**{resource: 10**17}), resource) == 10**17
    with pytest.raises(InputError, match=rf"search\.budget\.{resource} = 100000000000000001: expected at most"):
        Budget(**{resource: 10**17 + 1})
