"""Intervals of one network, against values worked out by hand."""

from statistics import NormalDist

import pytest

from robust_arch.common.statistics import accuracy_interval

EQUAL = 100 * 163 / 360


def test_runs_that_agree_are_no_certainty() -> None:
    # standard deviation of rounding to one of 360 images: (100 / 360) / sqrt(12) = 0.080188 points;
    # t at 1 degree of freedom 12.7062: 12.7062 * 0.080188 / sqrt(2) = 0.72047
    mean, low, high = accuracy_interval([EQUAL, EQUAL], 360)
    assert mean == EQUAL
    assert (mean - low, high - mean) == pytest.approx((0.72047, 0.72047), abs=1e-4)


def test_the_floor_shrinks_with_images_and_runs() -> None:
    # 10,000 images, 4 runs, t at 3 degrees of freedom 3.18245: 3.18245 * 0.01 / sqrt(12) / 2
    mean, low, high = accuracy_interval([50.0] * 4, 10_000)
    assert (low, high) == pytest.approx((mean - 0.0045934, mean + 0.0045934), abs=1e-6)


def test_runs_that_scatter_more_keep_their_t_interval() -> None:
    # standard deviation 2, t at 2 degrees of freedom 4.302653
    assert accuracy_interval([50.0, 52.0, 54.0], 360) == pytest.approx((52, 47.031725, 56.968275), abs=1e-5)


@pytest.mark.parametrize("value", [0.0, 100.0])
def test_intervals_stay_inside_0_and_100(value: float) -> None:
    mean, low, high = accuracy_interval([value, value], 360)
    assert (mean, high - low) == (value, pytest.approx(0.72047, abs=1e-4))
    assert 0 <= low <= high <= 100


def test_one_run_has_wilson_s_interval() -> None:
    z = NormalDist().inv_cdf(0.975)
    _, low, high = accuracy_interval([50.0], 360)
    assert (low, high) == pytest.approx((50 - 50 * z / (360 + z**2) ** 0.5, 50 + 50 * z / (360 + z**2) ** 0.5))
