"""Changes of one network, against the numbers worked out by hand and a search through every width."""

import itertools
import math
from dataclasses import replace

import pytest

from robust_arch.architectures import ArchSpec, cost
from robust_arch.errors import InputError
from robust_arch.search import Budget, Space, Tie, Variants

TASK = (10, (1, 8, 8))
BASE = ArchSpec("wide_resnet", (2, 3, 4), (16, 32, 64), stem_width=8)


def members(vary, budget=None, base=BASE, width_step=8, **more):
    return Space(template=base, vary=Variants(**vary), width_step=width_step, **more).members(budget or Budget(), *TASK)


def shapes(vary, **more):
    return [(spec.depths, spec.widths) for spec in members(vary, **more).specs]


def test_one_stage_at_a_time_around_the_base():
    assert shapes({"widths": [0.5, 2], "depths": [0.5]}) == [
        ((2, 3, 4), (16, 32, 64)),
        ((2, 3, 4), (8, 32, 64)),
        ((2, 3, 4), (32, 32, 64)),
        ((1, 3, 4), (16, 32, 64)),
        ((2, 3, 4), (16, 16, 64)),
        ((2, 3, 4), (16, 64, 64)),
        ((2, 2, 4), (16, 32, 64)),  # 3 * 0.5 = 1.5 blocks: halves go up
        ((2, 3, 4), (16, 32, 32)),
        ((2, 3, 4), (16, 32, 128)),
        ((2, 3, 2), (16, 32, 64)),
    ]
    found = members({"widths": [0.5, 2], "depths": [0.5]})
    assert {spec.stem_width for spec in found.specs} == {8}
    assert (found.considered, found.rejected) == (10, ())


def test_all_stages_together():
    assert shapes({"widths": [0.5, 3], "depths": [2], "together": True})[1:] == [
        ((2, 3, 4), (8, 16, 32)),
        ((2, 3, 4), (48, 96, 192)),
        ((4, 6, 8), (16, 32, 64)),
    ]


def test_chosen_stages_alone_change():
    depths = [depths for depths, _ in shapes({"depths": [2], "stages": [1, "last"]})]
    assert depths == [(2, 3, 4), (4, 3, 4), (2, 3, 8)]
    depths = [depths for depths, _ in shapes({"depths": [2], "stages": [1, "last"], "together": True})]
    assert depths == [(2, 3, 4), (4, 3, 8)]


def test_widths_are_rounded_to_steps_and_both_have_a_least_value():
    found = shapes({"widths": [0.1, 0.8], "depths": [0.01], "stages": [2]})
    # 3.2 to one step of 8, 25.6 to 24, 0.03 blocks to one
    assert [(depths[1], widths[1]) for depths, widths in found] == [(3, 32), (3, 8), (3, 24), (1, 32)]


@pytest.mark.parametrize("name", ["widths", "depths"])
def test_what_is_beyond_the_bound_is_refused(name):
    for factor in (1e300, 2.0**24):
        with pytest.raises(
            InputError, match=rf"search\.space\.vary\.{name} = .*: expected factors that lead to at most 16,777,216"
        ):
            members({name: [factor]})
    assert len(members({name: [2**18]}).specs) == 4
    with pytest.raises(InputError, match=rf"arch\.{name} = 4294967298: .*at most 16,777,216"):
        members({"widths": [0.5]}, base=replace(BASE, **{name: (4_294_967_298, 2, 2)}))


def test_the_same_network_twice_is_one_member():
    found = members({"depths": [0.4, 0.5], "stages": [1]})
    assert [spec.depths for spec in found.specs] == [(2, 3, 4), (1, 3, 4)]
    (rejected,) = found.rejected
    assert rejected.description.startswith("stage 1, depths x 0.5: depths 1-3-4")
    assert rejected.reason.startswith("the same network as stage 1, depths x 0.4")


def test_without_refill_a_budget_filters_and_the_base_stays():
    budget = Budget(params=cost(BASE, *TASK).params, tolerance=0.02)
    found = members({"widths": [0.5], "depths": [0.5]}, budget)
    # of 406,986 parameters a first stage of half the depth saves 4,640, 1.1%; of half the width more than 2%
    assert list(found.specs) == [BASE, ArchSpec("wide_resnet", (1, 3, 4), (16, 32, 64), stem_width=8)]
    assert (found.considered, found.rejected_count) == (7, 5)


def spread_of(widths, base):
    factors = [math.log(width / before) for width, before in zip(widths, base, strict=True)]
    return max(factors) - min(factors)


@pytest.mark.parametrize("resource", ["params", "macs"])
@pytest.mark.parametrize("factor", [0.25, 0.5, 0.75])
def test_refilled_stages_share_the_factor_that_no_other_widths_share_better(resource, factor):
    base = ArchSpec("wide_resnet", (2, 2, 2), (8, 16, 32))
    budget = Budget(**{resource: getattr(cost(base, *TASK), resource)}, tolerance=0.02)
    found = members({"widths": [factor], "stages": ["last"], "refill": True}, budget, base, width_step=2)
    assert found.specs[0] == base
    (_, refilled) = found.specs
    last = 32 * factor
    assert refilled.widths[-1] == last
    inside = []
    for first, second in itertools.product(range(2, 62, 2), range(2, 62, 2)):
        spec = ArchSpec("wide_resnet", (2, 2, 2), (first, second, int(last)))
        if abs(getattr(cost(spec, *TASK), resource) / getattr(budget, resource) - 1) <= 0.02:
            inside.append(spec)
    best = min(spread_of(spec.widths[:2], (8, 16)) for spec in inside)
    assert refilled in inside
    assert spread_of(refilled.widths[:2], (8, 16)) == pytest.approx(best)


def test_refill_without_a_budget_keeps_the_other_stages():
    plain, refill = ({"widths": [0.5], "depths": [0.5], "refill": flag} for flag in (False, True))
    assert members(plain) == members(refill)


def test_a_stage_too_large_to_be_balanced_is_rejected_with_the_reason():
    budget = Budget(params=cost(BASE, *TASK).params, tolerance=0.02)
    found = members({"widths": [4], "stages": [3], "refill": True}, budget)
    assert list(found.specs) == [BASE]
    (rejected,) = found.rejected
    assert "no widths of the other stages in steps of 8 meet search.budget" in rejected.reason


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        ({}, r"vary = .*factors"),
        ({"stages": [1]}, r"vary = .*factors"),
        ({"widths": [0]}, r"vary\.widths = \[0\]: expected different factors greater than 0"),
        ({"widths": 0.5}, r"vary\.widths = 0\.5: expected different"),
        ({"depths": [2, 2]}, r"vary\.depths = \[2, 2\]: expected different"),
        ({"depths": ["2"]}, r"vary\.depths = \['2'\]"),
        ({"depths": [float("nan")]}, r"vary\.depths = \[nan\]"),
        ({"depths": [2], "stages": [4]}, r"vary\.stages = \[4\]: expected different stages from 1 to 3"),
        ({"depths": [2], "stages": [3, "last"]}, r"vary\.stages = .*different stages"),
        ({"depths": [2], "stages": ["first"]}, r"vary\.stages = .*last"),
        ({"depths": [2], "stages": []}, r"vary\.stages = "),
        ({"depths": [2], "together": "yes"}, r"vary\.together = 'yes': expected true or false"),
        ({"depths": [2], "together": True, "refill": True}, r"vary\.refill = True: expected false with together"),
    ],
    ids=str,
)
def test_bad_changes_are_named(vary, message):
    with pytest.raises(InputError, match=rf"search\.space\.{message}"):
        members(vary)


@pytest.mark.parametrize("other", [{"depths": [[1]] * 3}, {"widths": [[8]] * 3}, {"shares": [[0.2, 0.3, 0.5]]}])
def test_vary_excludes_other_choices(other):
    with pytest.raises(InputError, match=r"search\.space\.vary: .*without"):
        members({"depths": [2]}, **other)
    with pytest.raises(InputError, match=r"search\.space\.tie"):
        members({"depths": [2]}, tie=Tie(depths=[[1, 2]]))
