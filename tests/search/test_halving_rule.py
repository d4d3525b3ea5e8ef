"""Which architectures are promoted, against tables worked out by hand."""

import pytest

from robust_arch.errors import InputError
from robust_arch.search import Halving
from robust_arch.search.halving import geometric_rungs, kept, mean_or_none, ranking, tied

#         0     1     2     3     4     5
VALUES = [15.0, 30.0, 27.0, 26.0, None, 5.0]


@pytest.mark.parametrize(
    ("least", "most", "eta", "rungs"),
    [(3, 27, 3, (3, 9, 27)), (1, 27, 3, (1, 3, 9, 27)), (2, 10, 3, (3, 10)), (4, 4, 2, (4,)), (10, 100, 4, (25, 100))],
)
def test_rungs_follow_from_their_ends(least, most, eta, rungs):
    assert geometric_rungs(least, most, eta) == rungs
    assert Halving(min=least, max=most, eta=eta).values == rungs


def test_the_part_that_is_promoted_is_rounded_up():
    assert [kept(*each) for each in ((9, 3), (10, 3), (1, 3), (2, 3), (5, 2))] == [3, 4, 1, 1, 3]
    assert Halving(rungs=[2, 5, 10], eta=3).schedule(12) == (12, 4, 2)
    assert Halving(rungs=[1, 3, 9, 27], eta=2).schedule(7) == (7, 4, 2, 1)


def test_the_mean_is_over_all_seeds_or_there_is_none():
    assert mean_or_none([40.0, 20.0]) == 30.0
    assert mean_or_none([40.0, None]) is None
    assert mean_or_none([]) is None


def test_equal_counts_of_images_are_equal_in_single_precision():
    third, two_thirds = 33.33333206176758, 66.66666412353516  # of 100, as float32
    assert mean_or_none([third, two_thirds]) == mean_or_none([0.0, 100.0])
    assert tied([two_thirds, third], 1, 33.3333) == (0, 1)


def test_without_ties_the_order_is_that_of_the_values_then_of_the_plan_and_failures_are_last():
    assert ranking(VALUES, 2, 0.0, {}) == (1, 2, 3, 0, 5, 4)
    assert ranking([7.0, 9.0, 7.0, 7.0], 2, 0.0, {}) == (1, 0, 2, 3)


@pytest.mark.parametrize(
    ("points", "positions"),
    [
        (0.0, ()),  # the cut is between 27 and 26
        (0.9, ()),
        (1.0, (2, 3)),  # as far apart as the tie allows
        (3.9, (2, 3)),
        (4.0, (1, 2, 3)),  # 30 is 4 above the best below the cut
        (12.0, (0, 1, 2, 3)),  # 15 is 12 below the worst above it
        (100.0, (0, 1, 2, 3, 5)),  # all but the failed one
    ],
)
def test_which_architectures_are_tied_at_the_cut(points, positions):
    assert tied(VALUES, 2, points) == positions


def test_only_values_across_the_cut_are_tied():
    assert tied([7.0, 9.0, 7.0, 7.0, 6.0], 2, 0.0) == (0, 2, 3)
    assert tied([7.0, 7.0, 5.0], 2, 0.0) == ()  # equal, and both above
    # nothing is dropped, or all below have failed
    assert tied([3.0, 2.0], 2, 50.0) == ()
    assert tied([3.0, None], 1, 50.0) == ()
    assert tied([None, None], 1, 50.0) == ()


def test_further_seeds_decide_among_the_tied_alone():
    # 2 and 3 are tied; 3 has the better mean over all seeds, though both fall below 0, which is not tied
    assert ranking(VALUES, 2, 1.0, {2: 12.0, 3: 14.0}) == (1, 3, 2, 0, 5, 4)
    assert ranking([20.0, 21.0], 1, 1.0, {0: 18.0, 1: 18.0}) == (0, 1)  # equal: in plan order
    assert ranking(VALUES, 2, 1.0, {2: None, 3: 14.0}) == (1, 3, 0, 5, 2, 4)  # a further run failed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"rungs": [3, 9], "resource": "seed"},
            r"hydra\.sweeper\.resource = 'seed': expected one of trainer",
        ),
        ({"rungs": [3, 3]}, r"hydra\.sweeper\.rungs = \[3, 3\]: expected an increasing list"),
        ({"rungs": []}, r"hydra\.sweeper\.rungs = \[\]"),
        ({"rungs": 3}, r"hydra\.sweeper\.rungs = 3"),
        ({"rungs": [3], "max": 9}, "either rungs, or min and max"),
        ({}, r"hydra\.sweeper\.max = None"),
        ({"max": 9, "min": 10}, r"hydra\.sweeper\.min = 10: expected an integer from 1 to hydra\.sweeper\.max = 9"),
        ({"rungs": [3], "eta": 1}, r"hydra\.sweeper\.eta = 1: expected an integer of at least 2"),
        ({"rungs": [3], "eta": 2.5}, r"hydra\.sweeper\.eta = 2\.5"),
        ({"rungs": [3], "tie_points": -1}, r"hydra\.sweeper\.tie_points = -1"),
        ({"rungs": [3], "tie_seeds": [1, 1]}, r"hydra\.sweeper\.tie_seeds = \[1, 1\]: expected different"),
        ({"rungs": [3], "tie_seeds": 4}, r"hydra\.sweeper\.tie_seeds = 4"),
    ],
)
def test_what_is_not_allowed_is_named(options, message):
    with pytest.raises(InputError, match=message):
        Halving(**options)


def test_seeds_that_break_ties_must_be_others():
    with pytest.raises(InputError, match=r"tie_seeds = \[1, 5\]: expected other seeds than the study's \[0, 1\]"):
        Halving(rungs=[3], tie_seeds=[1, 5]).require_other_seeds((0, 1))
