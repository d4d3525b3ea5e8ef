"""The points of a space inside a budget, against every point's cost taken one by one."""

import itertools
import re

import pytest

from robust_arch.architectures import ArchSpec, cost
from robust_arch.errors import InputError
from robust_arch.search import Budget, Space, Variants, allocate

TASK = (10, (1, 8, 8))
TEMPLATE = ArchSpec("wide_resnet", (1, 1, 1), (1, 1, 1))
DEPTHS, WIDTHS = [[1, 2], [1, 2], [1]], [[16, 32], [32, 64], [16, 32, 64]]


def grid(depths=DEPTHS, widths=WIDTHS, template=TEMPLATE):
    return Space(template=template, depths=depths, widths=widths)


def every_point(depths=DEPTHS, widths=WIDTHS):
    """Each point's spec, in the order in which nested loops over the choices come to it."""
    for point in itertools.product(*depths, *widths):
        yield ArchSpec("wide_resnet", point[:3], point[3:])


def misses(spec, budget):
    """By resource that is set, by what part of the budget the cost is over (or, below 0, under) it."""
    found = cost(spec, *TASK)
    return {key: getattr(found, key) / getattr(budget, key) - 1 for key in budget.resources}


MIDDLE = ArchSpec("wide_resnet", (2, 1, 1), (16, 64, 32))
BUDGETS = [
    Budget(params=cost(MIDDLE, *TASK).params, tolerance=0.25),
    Budget(macs=cost(MIDDLE, *TASK).macs, tolerance=0.25),
    Budget(params=cost(MIDDLE, *TASK).params, macs=cost(MIDDLE, *TASK).macs, tolerance=0.25),
    Budget(params=cost(MIDDLE, *TASK).params, tolerance=0),
]


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_members_are_the_points_inside(budget):
    expected = [
        spec for spec in every_point() if all(abs(m) <= budget.tolerance for m in misses(spec, budget).values())
    ]
    assert MIDDLE in expected
    members = grid().members(budget, *TASK)
    assert list(members.specs) == expected
    assert members.considered == 48
    assert members.rejected_count == 48 - len(expected)


def test_under_both_budgets_each_alone_admits_more():
    # otherwise the test above could not tell `both` from one of them
    params, macs, both = (set(grid().members(budget, *TASK).specs) for budget in BUDGETS[:3])
    assert both == params & macs
    assert both < params
    assert both < macs
    members = grid().members(Budget(), *TASK)
    assert list(members.specs) == list(every_point())
    assert (members.considered, members.rejected, members.rejected_count) == (48, (), 0)


LISTED = [{"depths": [2, 1, 1], "widths": [16, 64, 32]}, {"depths": [1, 1, 2], "widths": [8, 8, 8]}]


def test_listed_architectures_are_the_members_inside_and_count_once():
    members = Space(template=TEMPLATE, architectures=[*LISTED, LISTED[0]]).members(BUDGETS[0], *TASK)
    assert list(members.specs) == [MIDDLE]
    assert [each.reason for each in members.rejected] == [
        BUDGETS[0].reason(cost(ArchSpec("wide_resnet", (1, 1, 2), (8, 8, 8)), *TASK)),
        "the same network as depths 2-1-1, widths 16-64-32",
    ]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"architectures": []}, "search.space.architectures = []"),
        ({"architectures": [{"depths": [1, 1, 1]}]}, "search.space.architectures = {'depths'"),
        ({"architectures": [{"depths": [1, 1, 0], "widths": [8, 8, 8]}]}, "arch.depths = [1, 1, 0]"),
        ({"architectures": LISTED, "widths": WIDTHS}, "search.space.architectures: set it without"),
        ({"architectures": LISTED, "vary": Variants(widths=(2,))}, "search.space.vary: set it without"),
    ],
)
def test_listed_architectures_that_are_wrong_are_one_error(keys, message):
    with pytest.raises(InputError, match=re.escape(message)):
        Space(template=TEMPLATE, **keys)


def parsed(rejected):
    """The architecture that a rejected point's description tells of."""
    numbers = re.fullmatch(r"depths ([\d-]+), widths ([\d-]+)", rejected.description)
    depths, widths = (tuple(int(part) for part in group.split("-")) for group in numbers.groups())
    return ArchSpec("wide_resnet", depths, widths)


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_the_nearest_rejected_points_are_shown_first(budget):
    def distance(spec):
        return max(abs(miss) for miss in misses(spec, budget).values())

    members = grid().members(budget, *TASK)
    outside = [distance(spec) for spec in every_point() if spec not in members.specs]
    shown = [parsed(rejected) for rejected in members.rejected]
    assert len(set(shown)) == len(shown) == 20
    assert not set(shown) & set(members.specs)
    assert [distance(spec) for spec in shown] == pytest.approx(sorted(outside)[:20])


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_each_rejection_names_what_was_missed_and_how(budget):
    for rejected in grid().members(budget, *TASK).rejected:
        missed = {key: m for key, m in misses(parsed(rejected), budget).items() if abs(m) > budget.tolerance}
        named = re.findall(r"(params|macs) ([\d.]+)% (over|under)", rejected.reason)
        assert [(key, side) for key, _, side in named] == [
            (key, "over" if missed[key] > 0 else "under") for key in ("params", "macs") if key in missed
        ]
        for key, percent, _ in named:
            assert float(percent) == pytest.approx(100 * abs(missed[key]), abs=0.05001)


def test_a_published_network_misses_a_budget_by_a_known_amount():
    # WRN-34-10 has 46,160,474 parameters and 6.659 G multiply-accumulates
    space = Space(template=TEMPLATE, depths=[[5]] * 3, widths=[[160], [320], [640]])
    members = space.members(Budget(params=40_000_000, macs=9_582_000_000), 10, (3, 32, 32))
    assert members.specs == ()
    (rejected,) = members.rejected
    assert rejected.description == "depths 5-5-5, widths 160-320-640"
    assert rejected.reason == "params 15.4% over, macs 30.5% under"


@pytest.mark.parametrize("size", [1, 7, 16, 47, 48])
@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_a_grid_taken_in_parts_has_the_same_members(budget, size, monkeypatch):
    whole = grid().members(budget, *TASK)
    monkeypatch.setattr("robust_arch.search.space._CHUNK", size)
    assert grid().members(budget, *TASK) == whole


def test_members_keep_the_other_fields_of_the_template():
    template = ArchSpec("wide_resnet", (1, 1, 1), (1, 1, 1), stem_width=8, activation="silu", dropout=0.1)
    (spec,) = grid([[2], [1], [1]], [[8], [16], [16]], template).members(Budget(), *TASK).specs
    assert spec == ArchSpec("wide_resnet", (2, 1, 1), (8, 16, 16), stem_width=8, activation="silu", dropout=0.1)
    # the cost is that of the narrower stem too
    exact = Budget(params=cost(spec, *TASK).params, tolerance=0)
    assert grid([[2], [1], [1]], [[8], [16], [16]], template).members(exact, *TASK).specs == (spec,)


def test_shares_become_the_widths_that_allocate_finds():
    budget, shares = Budget(params=60_000, tolerance=0.05), [(0.2, 0.3, 0.5), (0.5, 0.3, 0.2)]
    template = ArchSpec("wide_resnet", (1, 1, 1), (1, 1, 1), stem_width=8, activation="silu")
    space = Space(template=template, depths=[[1], [1, 2], [1]], shares=shares, width_step=4)
    members = space.members(budget, *TASK)
    assert (members.considered, members.rejected) == (4, ())
    for spec, ((_, middle, _), wanted) in zip(
        members.specs, itertools.product([(1, 1, 1), (1, 2, 1)], shares), strict=True
    ):
        assert (spec.depths, spec.stem_width, spec.activation) == ((1, middle, 1), 8, "silu")
        found = cost(spec, *TASK)
        assert 57_000 <= found.params <= 63_000
        assert all(width % 4 == 0 for width in spec.widths)
        assert max(abs(part - share) for part, share in zip(found.shares(), wanted, strict=True)) < 0.1
        task = {"stem_width": 8, "num_classes": 10, "image_shape": (1, 8, 8)}
        assert spec.widths == allocate(budget, wanted, spec.depths, 4, **task).widths


def test_shares_that_give_the_same_widths_are_one_member():
    space = Space(template=TEMPLATE, depths=[[1]] * 3, shares=[(0.2, 0.3, 0.5), (0.201, 0.299, 0.5)], width_step=16)
    members = space.members(Budget(params=200_000, tolerance=0.2), *TASK)
    assert (len(members.specs), members.considered, members.rejected_count) == (1, 2, 1)
    (rejected,) = members.rejected
    assert rejected.description == "depths 1-1-1, shares 0.201-0.299-0.5"
    assert rejected.reason == "the same widths as depths 1-1-1, shares 0.2-0.3-0.5"


def test_depths_too_deep_for_the_budget_are_rejected_with_the_reason():
    # 400 blocks of the narrowest width on the grid, 8, have 18 * 8 * 8 weights each: 460,800 in all
    space = Space(template=TEMPLATE, depths=[[1], [1], [1, 400]], shares=[(0.2, 0.3, 0.5)])
    members = space.members(Budget(params=100_000, tolerance=0.1), *TASK)
    assert [spec.depths for spec in members.specs] == [(1, 1, 1)]
    (rejected,) = members.rejected
    assert rejected.description == "depths 1-1-400, shares 0.2-0.3-0.5"
    assert re.search(r"search\.budget = 100,000 parameters.*no widths in steps of 8", rejected.reason)


BAD_CHOICES = [[[1, 1], [1], [1]], [[0], [1], [1]], [[], [1], [1]], [[1.5], [1], [1]], [[True], [1], [1]], [1, 1, 1]]


@pytest.mark.parametrize("choices", BAD_CHOICES, ids=str)
@pytest.mark.parametrize("key", ["depths", "widths"])
def test_bad_choices_are_named(key, choices):
    with pytest.raises(InputError, match=rf"search\.space\.{key} = ") as raised:
        grid(**{key: choices})
    assert str(choices) in str(raised.value)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({}, r"search\.space: .*either widths .* or shares"),
        ({"widths": WIDTHS, "shares": [(0.2, 0.3, 0.5)]}, r"search\.space: .*either widths .* or shares"),
        ({"widths": [[16], [32]]}, r"search\.space\.widths = .*as many stages as depths, 3"),
        (
            {"depths": [[1], [2]], "widths": [[16], [32]]},
            r"depths = \(1, 2\): expected 3 stages, as family",
        ),
        ({"shares": [(0.5, 0.5)]}, r"^search\.space\.shares = .*3 numbers greater than 0 with sum 1"),
        ({"shares": [(0.2, 0.3, 0.5), (0.5, 0.5, 0.5)]}, r"^search\.space\.shares = .*3 numbers"),
        ({"shares": [0.2, 0.3, 0.5]}, r"search\.space\.shares = \[0.2, 0.3, 0.5\]: .*list of divisions"),
        ({"shares": 0.5}, r"search\.space\.shares = 0.5: .*list of divisions"),
        ({"shares": "0.2,0.3,0.5"}, r"search\.space\.shares = '0.2,0.3,0.5': .*list of divisions"),
        ({"shares": []}, r"search\.space\.shares = \[\]: .*list of divisions"),
    ],
    ids=str,
)
def test_choices_that_do_not_fit_are_named(choices, message):
    with pytest.raises(InputError, match=message):
        Space(**{"template": TEMPLATE, "depths": DEPTHS, **choices})
