"""Intervals against published tables and a second, numerical way to the same numbers."""

import math
import subprocess
import sys

import numpy as np
import pytest

from robust_arch.common.statistics import mean_interval, rank_correlation, wilson_interval
from robust_arch.errors import InputError

Z = 1.9599639845400545


# Newcombe 1998, Statistics in Medicine 17, Table I, method 3 (score, no continuity correction)
@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_equals_published_values(successes, n, low, high):
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=5e-5)


def _score_root(successes, n, inside, outside):
    """Where |share - p| = z sqrt(p (1 - p) / n), by bisection from a p that the data allow to one they reject."""
    for _ in range(200):
        p = (inside + outside) / 2
        rejected = abs(successes / n - p) > Z * math.sqrt(p * (1 - p) / n)
        inside, outside = (inside, p) if rejected else (p, outside)
    return inside


@pytest.mark.parametrize(("successes", "n"), [(1, 7), (180, 360), (359, 360), (5520, 10000)])
def test_wilson_bounds_solve_the_score_equation(successes, n):
    expected = [_score_root(successes, n, successes / n, outside) for outside in (0.0, 1.0)]
    assert wilson_interval(successes, n) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("n", [1, 3, 50, 10000])
def test_wilson_at_the_ends_stays_in_the_unit_interval(n):
    none, all_ = wilson_interval(0, n), wilson_interval(n, n)
    assert none[0] == 0.0
    assert all_[1] == 1.0
    assert none[1] == pytest.approx(1 - all_[0])
    assert 0 < none[1] < 1


# two-sided 95% points of Student's t, any printed table
@pytest.mark.parametrize(
    ("degrees", "quantile"), [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (30, 2.042)]
)
def test_half_widths_are_those_of_the_printed_table(degrees, quantile):
    # one value of 1 among zeros: the variance of n values is 1 / n, and so the error of their mean is 1 / n
    mean, low, high = mean_interval([1.0] + [0.0] * degrees)
    assert [(mean - low) * (degrees + 1), (high - mean) * (degrees + 1)] == pytest.approx([quantile] * 2, abs=6e-4)


def test_mean_interval_by_hand():
    # mean 52, deviations -2 0 2, standard deviation 2, standard error 2 / sqrt(3), times 4.302653
    mean, low, high = mean_interval([50.0, 52.0, 54.0])
    assert mean == 52.0
    assert (low, high) == pytest.approx((52 - 4.968275, 52 + 4.968275), abs=1e-6)
    assert mean_interval([41.5]) == (41.5, None, None)


def test_kendall_by_hand():
    # of the pairs 12 13 14 23 24 34 only 23 is in the other order: (5 - 1) / 6
    assert rank_correlation([1, 2, 3, 4], [1, 3, 2, 4]) == (4, pytest.approx(4 / 6), None, None)
    # one of six pairs is tied on one side, the other five agree: 5 / sqrt(6 x 5)
    assert rank_correlation([1, 2, 3, 4], [1, 2, 2, 4]).tau == pytest.approx(5 / math.sqrt(30))


@pytest.mark.parametrize("seed", range(5))
def test_kendall_with_ties_is_a_count_of_pairs(seed):
    first, second = np.random.default_rng(seed).integers(0, 6, (2, 30))
    second = second + first  # not independent
    pairs = [(i, j) for i in range(30) for j in range(i)]
    signs = [[int(np.sign(side[i] - side[j])) for i, j in pairs] for side in (first, second)]
    agreement = sum(one * other for one, other in zip(*signs, strict=True))
    expected = agreement / math.sqrt(math.prod(sum(map(abs, side)) for side in signs))
    assert rank_correlation(first.tolist(), second.tolist()).tau == pytest.approx(expected, rel=1e-12)


def test_a_perfect_order_is_1_and_has_no_interval():
    for n in range(2, 40):
        for values, tau in ((range(n), 1), (range(n, 0, -1), -1)):
            assert rank_correlation(range(n), values) == (n, pytest.approx(tau, rel=1e-12), None, None)


def test_the_interval_of_kendall_by_hand_and_where_there_is_none():
    # 21 values in rising order but for the largest three, which come first: 3 x 18 of 210 pairs are reversed
    found = rank_correlation(range(21), [18, 19, 20, *range(18)])
    tau = (210 - 2 * 54) / 210
    bounds = [math.tanh(math.atanh(tau) + sign * Z * math.sqrt(0.437 / 17)) for sign in (-1, 1)]
    assert found[1:] == pytest.approx((tau, *bounds))
    assert rank_correlation([1, 1, 1], [1, 2, 3]) == (3, None, None, None)
    assert rank_correlation([], []) == (0, None, None, None)


@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_the_interval_of_kendall_holds_the_value_of_normal_variables(correlation):
    # tau = 2 / pi asin(correlation) of two normal variables (Kendall 1949)
    true = 2 / math.pi * math.asin(correlation)
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(600):
        first, other = generator.normal(size=(2, 21))
        second = correlation * first + math.sqrt(1 - correlation**2) * other
        found = rank_correlation(first.tolist(), second.tolist())
        covered += found.low <= true <= found.high
    assert 0.92 <= covered / 600 <= 0.98


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        *((wilson_interval, counts) for counts in ((-1, 5), (6, 5), (0, 0))),
        (mean_interval, ([],)),
        *((rank_correlation, pairs) for pairs in (([1, 2], [1]), ([1, math.nan], [1, 2]))),
    ],
)
def test_what_cannot_be_is_refused(call, arguments):
    with pytest.raises(InputError, match=" = "):
        call(*arguments)


def test_nothing_imports_scipy_or_jinja2_before_it_is_needed():
    modules = "robust_arch.common.statistics, robust_arch.analysis.claims, robust_arch.analysis.report, robust_arch.cli"
    code = (
        f"import sys, {modules}\n"
        "robust_arch.cli.app(['status', '--help'], standalone_mode=False)\n"
        "print('loaded:', *sorted({'scipy', 'jinja2'} & sys.modules.keys()))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "loaded:"
