"""Cuts to shares: uniform on the simplex, against the exact marginals, and always inside the budget."""

import math

import numpy as np
import pytest
from scipy import stats

from robust_arch.architectures import cost
from robust_arch.errors import InputError
from robust_arch.search import Budget, allocate
from robust_arch.search.allocation import check_cuts, stick_breaking


def test_shares_by_hand():
    assert stick_breaking([0.3]) == pytest.approx((0.3, 0.7), abs=1e-15)
    # v1 = 1 - sqrt(0.25) = 0.5; of the other half the cut 0.2 takes a fifth
    assert stick_breaking([0.75, 0.2]) == pytest.approx((0.5, 0.1, 0.4), abs=1e-15)


@pytest.mark.parametrize("stages", [2, 3, 4])
def test_uniform_cuts_give_every_share_its_marginal_on_the_simplex(stages):
    rng = np.random.default_rng(0)
    shares = np.array([stick_breaking(cuts) for cuts in rng.random((4000, stages - 1)).tolist()])
    for share in shares.T:
        assert stats.kstest(share, stats.beta(1, stages - 1).cdf).pvalue > 0.01
    # a division that is uniform has this covariance too: -1 / (S^2 (S + 1))
    covariance = np.cov(shares.T)[0, 1]
    assert covariance == pytest.approx(-1 / (stages**2 * (stages + 1)), rel=0.15)


def test_plain_stick_breaking_without_the_root_would_fail_the_same_test():
    cuts = np.random.default_rng(0).random((4000, 2))
    assert stats.kstest(cuts[:, 0], stats.beta(1, 2).cdf).pvalue < 1e-6


@pytest.mark.parametrize("cuts", [(1e-300, 1e-300), (1e-12, 0.5), (1 - 2**-53, 1 - 2**-53), (2**-1021, 1 - 2**-53)])
def test_at_the_corners_every_share_is_positive_and_the_sum_is_one(cuts):
    shares = stick_breaking(cuts)
    assert all(share > 0 for share in shares)
    assert math.fsum(shares) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    "cuts", [[0.0, 0.5], [0.5, 1.0], [-0.1, 0.5], [0.5], [0.5, 0.5, 0.5], ["a", 0.5], [True, 0.5], 0.5]
)
def test_cuts_that_are_not_allowed_are_named(cuts):
    with pytest.raises(InputError, match=r"search\.allocation\.cuts = .*: expected 2 numbers strictly between 0 and 1"):
        check_cuts(cuts, 3)


def test_two_hundred_random_suggestions_lie_inside_the_budget():
    rng = np.random.default_rng(1)
    budget, task = Budget(params=20_000), (10, (1, 8, 8))
    for _ in range(200):
        depths = rng.integers(1, 3, 3).tolist()
        shares = stick_breaking(rng.random(2).tolist())
        spec = allocate(budget, shares, depths, 1, num_classes=10, image_shape=(1, 8, 8))
        assert abs(cost(spec, *task).params / 20_000 - 1) <= 0.02
        assert spec.depths == tuple(depths)
