"""Ranges of choices, tied stages and bounds of the last stage's share, against loops over every point."""

import itertools
import re
from dataclasses import replace

import pytest

from robust_arch.architectures import ArchSpec, cost
from robust_arch.errors import InputError
from robust_arch.search import Budget, Space, Tie

TASK = (10, (1, 8, 8))
TEMPLATE = ArchSpec("wide_resnet", (1, 1, 1), (1, 1, 1))
ONE = [[1], [1], [1]]


def members(budget=None, **choices):
    return Space(**{"template": TEMPLATE, "depths": ONE, **choices}).members(budget or Budget(), *TASK)


def points(found):
    return [(spec.depths, spec.widths) for spec in found.specs]


def test_a_range_has_both_its_ends():
    depths = [{"min": 1, "max": 3}, {"min": 2, "max": 6, "step": 2}, [5, 1]]
    widths = [{"min": 8, "max": 24}, [32], {"min": 4, "max": 4}]
    by_hand = itertools.product([1, 2, 3], [2, 4, 6], [5, 1], [8, 16, 24], [32], [4])
    assert points(members(depths=depths, widths=widths)) == [(point[:3], point[3:]) for point in by_hand]


def test_ranges_of_widths_have_the_width_step_and_those_of_depths_1():
    found = members(depths=[{"min": 1, "max": 2}, [1], [1]], widths=[{"min": 4, "max": 12}, [8], [8]], width_step=4)
    assert {spec.widths[0] for spec in found.specs} == {4, 8, 12}
    assert {spec.depths[0] for spec in found.specs} == {1, 2}


BAD_RANGES = [
    {"min": 16},
    {"min": 16, "max": 8},
    {"min": 16, "max": 30, "step": 16},
    {"min": 0, "max": 16},
    {"min": 8, "max": 16, "step": 0},
    {"min": 8, "max": 16, "by": 8},
    {"min": 8.0, "max": 16},
    {"min": 8, "max": 8_000_000_000},
]


@pytest.mark.parametrize("stage", BAD_RANGES, ids=str)
def test_bad_ranges_are_named(stage):
    with pytest.raises(InputError, match=r"search\.space\.widths = .*") as raised:
        members(widths=[stage, [8], [8]])
    assert str(stage["min"]) in str(raised.value)


def test_a_grid_too_large_to_filter_is_refused_before_it_is_made():
    with pytest.raises(InputError, match=r"1,000,000,000,000 points, at most 1,000,000,000; .*search\.space\.tie"):
        members(widths=[{"min": 1, "max": 10_000, "step": 1}] * 3)
    with pytest.raises(InputError, match=r"search\.space\.width_step = 1000000000000: .*at most 16,777,216"):
        members(widths=ONE, width_step=10**12)


def test_tied_stages_move_together_by_position():
    depths, widths = [[1, 2], [1, 2], [3, 4]], [[4, 8, 16], [8, 16, 32], [5, 6]]
    found = members(depths=depths, widths=widths, tie=Tie(depths=[[1, 3]], widths=[[1, 2]]))
    # every point of the whole grid whose positions agree, in the order of the grid
    kept = []
    for choice in itertools.product(*(range(len(values)) for values in (*depths, *widths))):
        if choice[0] == choice[2] and choice[3] == choice[4]:
            values = tuple(values[i] for values, i in zip((*depths, *widths), choice, strict=True))
            kept.append((values[:3], values[3:]))
    assert points(found) == kept
    assert (found.considered, len(kept)) == (2 * 2 * 3 * 2, 24)


def test_equal_lists_tied_are_equal_values_and_proportional_ones_a_factor():
    widths = [{"min": 16, "max": 64, "step": 16}, {"min": 32, "max": 128, "step": 32}, [64, 128, 192, 256]]
    tie = Tie(depths=[[1, 2, 3]], widths=[[3, 1, 2]])
    found = members(depths=[[1, 2, 5]] * 3, widths=widths, tie=tie)
    assert points(found) == [((d, d, d), (16 * k, 32 * k, 64 * k)) for d in (1, 2, 5) for k in (1, 2, 3, 4)]


@pytest.mark.parametrize("size", [1, 5, 11, 12])
def test_a_tied_grid_taken_in_parts_has_the_same_members(size, monkeypatch):
    tie = Tie(depths=[[1, 2, 3]], widths=[[1, 2, 3]])
    choices = {"depths": [[1, 2, 5]] * 3, "widths": [[4, 8, 12, 16]] * 3, "tie": tie}
    budget = Budget(params=9_000, tolerance=0.5)
    whole = members(budget, **choices)
    assert 0 < len(whole.specs) < 12
    monkeypatch.setattr("robust_arch.search.space._CHUNK", size)
    assert members(budget, **choices) == whole


def test_tied_depths_of_divisions():
    found = members(
        Budget(params=60_000, tolerance=0.1), depths=[[1, 2]] * 3, shares=[[0.2, 0.3, 0.5]], tie=Tie(depths=[[1, 2, 3]])
    )
    assert [spec.depths for spec in found.specs] == [(1, 1, 1), (2, 2, 2)]


BAD_TIES = [
    ({"widths": [[]]}, r"tie\.widths = \[\[\]\]: expected groups"),
    ({"depths": [1, 2]}, r"tie\.depths = \[1, 2\]: expected groups"),
    ({"widths": [[0, 1]]}, r"tie\.widths = \[\[0, 1\]\]: expected groups"),
    ({"widths": [[1, 2], [2, 3]]}, r"tie\.widths = .*: expected groups"),
    ({"widths": [[1, 4]]}, r"tie\.widths = \[1, 4\]: expected stages from 1 to 3"),
    ({"widths": [[1, 3]]}, r"tie\.widths = \[1, 3\]: expected stages with equally many choices; these have \[2, 1\]"),
]


@pytest.mark.parametrize(("tie", "message"), BAD_TIES, ids=str)
def test_bad_ties_are_named(tie, message):
    with pytest.raises(InputError, match=message):
        members(widths=[[4, 8], [4, 8], [4]], tie=Tie(**tie))


def test_widths_that_shares_decide_cannot_be_tied():
    with pytest.raises(InputError, match=r"search\.space\.tie\.widths = "):
        members(shares=[[0.2, 0.3, 0.5]], tie=Tie(widths=[[1, 2]]))


GRID = {"depths": [[1, 2], [1], [1, 2]], "widths": [[8, 16], [8, 16], [8, 16, 32]]}


@pytest.mark.parametrize(
    ("budget", "resource"),
    [
        (Budget(params=12_000, tolerance=0.6), "params"),
        (Budget(macs=400_000, tolerance=0.5), "macs"),
        (Budget(params=12_000, macs=400_000, tolerance=0.6), "params"),
        (Budget(), "params"),
    ],
    ids=str,
)
def test_the_last_stages_share_has_bounds(budget, resource):
    low, high = {"params": (0.3, 0.7), "macs": (0.05, 0.2)}[resource]
    found = members(budget, **GRID, last_share=[low, high])
    expected = []
    for spec in members(budget, **GRID).specs:
        parts = getattr(cost(spec, *TASK), f"stage_{resource}")
        if low <= parts[-1] / sum(parts) <= high:
            expected.append(spec)
    assert 0 < len(expected) < len(members(budget, **GRID).specs)
    assert list(found.specs) == expected
    assert found.rejected_count == 48 - len(expected)


def test_a_rejected_share_is_reported_with_its_resource_and_bound():
    # depths 1-1-1, widths 8-8-8, stem 16: stages of 1,904, 1,248 and 1,248 parameters: 28.4%
    (rejected,) = members(widths=[[8], [8], [8]], last_share=[0.3, 0.5]).rejected
    assert rejected.reason == "last stage 28.4% of params, below 30%"
    (both,) = members(Budget(params=10_000), widths=[[8], [8], [8]], last_share=[0.3, 0.5]).rejected
    assert re.fullmatch(r"params 5\d\.\d% under, last stage 28\.4% of params, below 30%", both.reason)
    # under MACs: 1,856 * 64, 1,216 * 16, 1,216 * 4: 3.4%
    macs = Budget(macs=200_000, tolerance=0.5)
    (rejected,) = members(macs, widths=[[8], [8], [8]], last_share=[0, 0.01]).rejected
    assert rejected.reason == "last stage 3.4% of macs, above 1%"


def test_divisions_outside_the_bounds_are_rejected_with_the_reason():
    shares = [[0.2, 0.3, 0.5], [0.1, 0.2, 0.7]]
    found = members(Budget(params=60_000, tolerance=0.1), shares=shares, last_share=[0, 0.6], width_step=4)
    assert len(found.specs) == 1
    (rejected,) = found.rejected
    assert rejected.description == "depths 1-1-1, shares 0.1-0.2-0.7"
    assert re.fullmatch(r"last stage (69|70|71)\.\d% of params, above 60%", rejected.reason)


@pytest.mark.parametrize("bounds", [[0.5], [0.5, 0.2], [-0.1, 0.5], [0, 1.1], 0.5, ["a", 1], [True, 1]], ids=str)
def test_bad_bounds_are_named(bounds):
    with pytest.raises(InputError, match=r"search\.space\.last_share = .*low < high"):
        members(widths=[[8], [8], [8]], last_share=bounds)


def test_every_division_into_parts():
    space = Space(template=TEMPLATE, shares={"parts": 5})
    by_hand = [(1, 1, 3), (1, 2, 2), (1, 3, 1), (2, 1, 2), (2, 2, 1), (3, 1, 1)]
    assert space.shares == tuple(tuple(part / 5 for part in parts) for parts in by_hand)
    assert space.depths == ((1,), (1,), (1,))  # the template's


@pytest.mark.parametrize("value", [2**24 + 1, 4_294_967_298, 10**20])
@pytest.mark.parametrize("name", ["depths", "widths"])
def test_a_choice_beyond_the_bound_is_refused_and_not_wrapped(name, value):
    # 4,294,967,298 is 2 in 32 bits
    for stage in ([1, value], {"min": value, "max": value, "step": 1}):
        with pytest.raises(InputError, match=rf"search\.space\.{name} = .*{value}.*16,777,216"):
            members(**{"depths": ONE, "widths": ONE, name: [stage, [1], [1]]})


def test_costs_of_the_widest_choice_are_exact():
    (spec,) = members(widths=[[2**24], [2], [2**20]]).specs
    assert spec.widths == (2**24, 2, 2**20)
    found = cost(spec, *TASK)
    assert list(members(Budget(params=found.params, tolerance=0), widths=[[2**24], [2], [2**20]]).specs) == [spec]
    assert list(members(Budget(params=found.params - 1, tolerance=0), widths=[[2**24], [2], [2**20]]).specs) == []


@pytest.mark.parametrize("choices", [{"depths": [[1, 2**24]] * 3}, {"widths": [[2**24]] * 3, "depths": [[64]] * 3}])
def test_costs_beyond_64_bits_are_refused(choices):
    with pytest.raises(InputError, match=r"search\.space: depths .* too large to be counted"):
        members(**{"widths": [[2**20]] * 3, **choices})
    with pytest.raises(InputError, match="too large to be counted"):
        members(widths=ONE, template=replace(TEMPLATE, stem_width=10**18))


@pytest.mark.parametrize(
    "shares", [{"parts": 2}, {"parts": 2.5}, {"parts": 8, "step": 1}, {}, {"parts": 1000}], ids=str
)
def test_bad_divisions_into_parts_are_named(shares):
    with pytest.raises(InputError, match=r"search\.space\.shares = "):
        Space(template=TEMPLATE, shares=shares)
