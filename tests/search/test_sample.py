"""Samples of a plan: how evenly they cover the space, and what is too much for one plan."""

from collections import Counter

import numpy as np
import pytest

from robust_arch.architectures import ArchSpec, cost
from robust_arch.errors import InputError
from robust_arch.search import Budget, Sample, Space, Tie
from robust_arch.search.candidates import MAX_RUNS

TASK = (10, (3, 16, 16))
TEMPLATE = ArchSpec("wide_resnet", (1, 1, 1), (1, 1, 1))


@pytest.fixture(scope="module")
def members():
    """A few hundred architectures, very unevenly spread."""
    depths = [[1, 2, 4], [1, 3], [1, 2, 3]]
    widths = [[8, 16, 32], [16, 32, 48], [16, 32, 64, 96]]
    budget = Budget(params=150_000, tolerance=0.7)
    return Space(template=TEMPLATE, depths=depths, widths=widths).members(budget, *TASK)


def positions(specs):
    """Ranks in [0, 1] of the last stage's share of parameters and of depth against width, one spec at a time."""
    share = [cost(spec, *TASK).stage_params[-1] / sum(cost(spec, *TASK).stage_params) for spec in specs]
    shape = [sum(spec.depths) / sum(spec.widths) for spec in specs]

    def ranks(values):
        # half of those below and those not above, equal values counted half
        twice = [sum(o < v for o in values) + sum(o <= v for o in values) - 1 for v in values]
        return np.array(twice) / 2 / (len(values) - 1)

    return np.array([ranks(share), ranks(shape)]).T


def strata_of(points):
    return [tuple(min(3, int(4 * value)) for value in point) for point in points]


def indices(sample, members):
    order = {spec: i for i, spec in enumerate(members.specs)}
    return [order[spec] for spec in sample.specs]


@pytest.mark.parametrize("count", [16, 17, 40, 100])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_stratum_is_represented_and_evenly(members, count, seed):
    strata = strata_of(positions(list(members.specs)))
    available = Counter(strata)
    assert 8 < len(available) <= 16 < len(members.specs)
    sample = Sample(count, seed).of(members, *TASK, "params")
    drawn = Counter(strata[i] for i in indices(sample, members))
    assert sum(drawn.values()) == len(sample.specs) == count
    assert set(drawn) == set(available)
    # a stratum that has members left has at most one fewer than any other
    most = max(drawn.values())
    assert all(drawn[stratum] >= most - 1 for stratum in available if drawn[stratum] < available[stratum])


def test_a_seed_fixes_the_sample_which_keeps_the_order_and_counts_the_rest(members):
    sample, again, other = (Sample(20, seed).of(members, *TASK, "params") for seed in (3, 3, 4))
    assert sample == again
    assert sample.specs != other.specs
    chosen = indices(sample, members)
    assert chosen == sorted(set(chosen))
    assert sample.not_sampled == len(members.specs) - 20
    assert (sample.rejected, sample.rejected_count) == (members.rejected, members.rejected_count)


def test_no_more_than_there_are(members):
    for count in (None, len(members.specs), len(members.specs) + 1):
        assert Sample(count).of(members, *TASK, "params") == members


@pytest.mark.parametrize("count", [16, 32, 64])
def test_no_member_is_far_from_a_chosen_one(members, count):
    points = positions(list(members.specs))

    def farthest(chosen):
        return np.linalg.norm(points[:, None] - points[None, chosen], axis=2).min(axis=1).max()

    rng = np.random.default_rng(0)
    at_random = [farthest(rng.choice(len(points), count, replace=False)) for _ in range(200)]
    for seed in range(5):
        chosen = indices(Sample(count, seed).of(members, *TASK, "params"), members)
        assert farthest(chosen) < np.median(at_random)


def test_the_share_is_of_macs_where_only_they_are_budgeted(members):
    by_params, by_macs = (Sample(20).of(members, *TASK, resource) for resource in ("params", "macs"))
    assert by_params.specs != by_macs.specs
    assert [Budget(params=1).counted, Budget(params=1, macs=1).counted, Budget(macs=1).counted, Budget().counted] == [
        "params", "params", "macs", "params",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((count,), r"search\.sample = .*at least 1") for count in (0, -1, 2.5, "ten", True)]
    + [((3, seed), r"search\.sample_seed = .*at least 0") for seed in (-1, 0.5, None, True)],
)
def test_bad_counts_and_seeds_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        Sample(*arguments)


def test_too_many_runs_for_one_plan_are_refused_with_what_helps():
    widths = [{"min": 1, "max": 50, "step": 1}, {"min": 1, "max": 50, "step": 1}, {"min": 1, "max": 20, "step": 1}]
    many = Space(template=TEMPLATE, depths=[[1], [1], [1]], widths=widths).members(Budget(), *TASK)
    assert len(many.specs) == 50_000
    many.require_plannable(MAX_RUNS // 50_000)
    with pytest.raises(InputError, match=r"150,000 runs .*search\.sample=<N>.*search\.budget\.tolerance"):
        many.require_plannable(3)
    Sample(30_000 // 1000).of(many, *TASK, "params").require_plannable(3)


def test_one_stratum_or_one_value_is_no_difficulty():
    tied = Space(template=TEMPLATE, depths=[[1], [1], [1]], widths=[[8, 16, 24]] * 3, tie=Tie(widths=[[1, 2, 3]]))
    found = tied.members(Budget(), *TASK)
    assert len(Sample(2).of(found, *TASK, "params").specs) == 2
