"""The statistics behind the claims against scipy's, or against a count by hand."""

import math
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from robust_arch.analysis.claims.concordance import architectures_for, concordance
from robust_arch.analysis.claims.differences import Contrast, Largest, Pairs
from robust_arch.analysis.claims.measured import Measured, noise, uneven
from robust_arch.architectures import ArchSpec


def study(values: np.ndarray) -> Measured:
    """Of (A, S) accuracies, NaN where there is no run; names and costs play no part here."""
    specs = (ArchSpec("wide_resnet", (1, 1, 1), (8, 16, 32)),) * len(values)
    means, counts = np.nanmean(values, axis=1), np.sum(~np.isnan(values), axis=1)
    return Measured(tuple(map(str, range(len(values)))), specs, means, counts, *noise(values), None, {}, {})


def pairs(*each: tuple[int, int]) -> Pairs:
    return Pairs(*np.array(each).T)


def rising(count: int) -> np.ndarray:
    """Costs that all differ, in rising order."""
    return np.triu(np.ones((count, count), dtype=bool), 1)


@pytest.mark.parametrize("count", [5, 7, 20])
def test_tau_is_kendalls(count: int) -> None:
    accuracy = np.random.default_rng(count).normal(size=count)
    expected = stats.kendalltau(np.arange(count), accuracy)
    assert concordance(rising(count), accuracy).tau == pytest.approx(expected.statistic)


@pytest.mark.parametrize("seed", range(5))
def test_the_permutation_test_is_the_exact_one_where_there_are_few(seed: int) -> None:
    accuracy = np.random.default_rng(seed).normal(size=6)
    expected = stats.kendalltau(np.arange(6), accuracy, method="exact", alternative="less")
    assert concordance(rising(6), accuracy).p_falls == pytest.approx(expected.pvalue)


def test_random_orders_agree_with_the_exact_test_within_their_own_noise() -> None:
    accuracy = np.array([9, 7, 8, 10, 5, 6, 3, 4, 1, 2, 0.5, 0.7, 11, 0.2])
    expected = stats.kendalltau(np.arange(14), accuracy, method="exact", alternative="less").pvalue
    # 4,999 draws of a share p scatter by sqrt(p (1 - p) / 4999)
    allowed = 4 * math.sqrt(expected * (1 - expected) / 4999) + 1 / 5000
    assert concordance(rising(14), accuracy).p_falls == pytest.approx(expected, abs=allowed)


def test_pairs_of_equal_cost_do_not_count() -> None:
    # costs 1, 1, 2: the pairs (1, 2) and (1, 2'); accuracies 3, 1, 2: one falls, one rises
    dearer = np.array([[0, 0, 1], [0, 0, 1], [0, 0, 0]], dtype=bool)
    found = concordance(dearer, np.array([3.0, 1.0, 2.0]))
    assert (found.tau, found.pairs) == (0, 2)
    # all six orders: tau is -1 where the last is the least (2 of 6), 0 where it is between, 1 where it is the most
    taus = sorted((order[2] > order[0]) / 1 + (order[2] > order[1]) - 1 for order in permutations(range(3)))
    assert taus == [-1, -1, 0, 0, 1, 1]
    assert found.p_falls == pytest.approx(4 / 6)


def test_the_interval_of_tau_leaves_out_zero_just_where_the_test_calls_it() -> None:
    for seed in range(40):
        accuracy = np.random.default_rng(seed).normal(size=6) - 0.4 * np.arange(6)
        found = concordance(rising(6), accuracy)
        assert (found.high < 0) == (found.p_falls < 0.025)


def test_how_many_architectures_is_kendalls_variance() -> None:
    # the variance at n is 2 (2 n + 5) / (9 n (n - 1)); 1.96 + 0.84 standard deviations fit into 1/3 first at n
    sds = {n: math.sqrt(2 * (2 * n + 5) / (9 * n * (n - 1))) for n in range(2, 100)}
    bar = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    assert architectures_for(1 / 3, 0.8) == next(n for n, sd in sds.items() if bar * sd <= 1 / 3)


def test_noise_of_a_full_table_is_the_residual_of_a_least_squares_fit() -> None:
    values = np.random.default_rng(0).normal(size=(4, 3))
    rows = [(a, s) for a in range(4) for s in range(3)]
    design = np.array([[a == i for i in range(4)] + [s == j for j in range(3)] for a, s in rows], dtype=float)
    target = np.array([values[row] for row in rows])
    fitted = design @ np.linalg.lstsq(design, target, rcond=None)[0]
    sigma, degrees = noise(values)
    assert degrees == 12 - np.linalg.matrix_rank(design)
    assert sigma == pytest.approx(math.sqrt(np.sum((target - fitted) ** 2) / degrees))


def test_noise_of_a_table_with_gaps_is_pooled_within_architectures() -> None:
    values = np.array([[1.0, 3.0, np.nan], [5.0, 5.0, 8.0], [7.0, np.nan, np.nan]])
    # squares about the means 2, 6 and 7: 2 + 6 + 0 on 1 + 2 + 0 degrees of freedom
    assert noise(values) == (pytest.approx(math.sqrt(8 / 3)), 3)


def test_one_run_each_gives_no_noise() -> None:
    assert noise(np.array([[1.0], [2.0], [4.0]])) == (None, 0)


def test_an_architecture_that_scatters_more_is_named() -> None:
    values = np.random.default_rng(0).normal(size=(12, 3))
    assert uneven(values) is None
    values[4] *= 12
    assert uneven(values) == 4


def test_one_in_a_hundred_even_studies_is_called_uneven() -> None:
    draws = np.random.default_rng(1).normal(size=(1000, 6, 3))
    called = sum(uneven(values) is not None for values in draws)
    assert 2 <= called <= 20  # 10 expected, with a standard deviation of 3.1


def test_two_architectures_are_compared_by_the_paired_t_test() -> None:
    values = np.random.default_rng(3).normal(size=(2, 6)) + np.array([[1.0], [0.0]])
    expected = stats.ttest_rel(values[0], values[1], alternative="greater")
    interval = stats.ttest_rel(values[0], values[1]).confidence_interval()
    found = Contrast(study(values), pairs((0, 1))).difference()
    assert found.p_value == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert Contrast(study(values), pairs((1, 0))).difference().p_value == pytest.approx(1 - expected.pvalue)


def test_the_largest_of_one_is_that_one() -> None:
    values = np.random.default_rng(4).normal(size=(2, 5))
    exact, drawn = (kind(study(values), pairs((0, 1))).difference() for kind in (Contrast, Largest))
    assert drawn.p_value == pytest.approx(exact.p_value, abs=4 * math.sqrt(0.25 / 20_000))
    assert drawn.high - drawn.low == pytest.approx(exact.high - exact.low, rel=0.05)


def test_many_against_one_is_dunnetts_test() -> None:
    generator = np.random.default_rng(5)
    values = generator.normal(size=(5, 6))
    values[[1, 3], 4:] = np.nan  # gaps: no effect of the seeds is taken out, as in Dunnett's test
    values[2] += 1.2
    samples = [row[~np.isnan(row)] for row in values]
    expected = stats.dunnett(*samples[1:], control=samples[0], alternative="greater")
    found = Largest(study(values), pairs(*((other, 0) for other in range(1, 5))))
    assert found.best == int(np.argmax(expected.statistic))
    assert found.difference().p_value == pytest.approx(min(expected.pvalue), abs=0.01)


def test_all_against_all_is_tukeys_test() -> None:
    values = np.random.default_rng(6).normal(size=(4, 5)) + np.array([[0.0], [0.4], [1.5], [0.2]])
    values[0, 0] = np.nan
    samples = [row[~np.isnan(row)] for row in values]
    expected = stats.tukey_hsd(*samples)
    found = Largest(study(values), pairs(*permutations(range(4), 2))).difference()
    # the largest of all ordered differences is the studentised range, whose p-value is two-sided by itself
    assert found.p_value == pytest.approx(expected.pvalue.min(), abs=0.012)


@pytest.mark.parametrize("kind", [Contrast, Largest])
def test_as_many_seeds_as_it_says_find_the_effect_with_the_stated_power(kind: type[Contrast] | type[Largest]) -> None:
    against = pairs(*((other, 0) for other in range(1, 6)))
    two_seeds = study(np.random.default_rng(7).normal(size=(6, 2)))
    seeds = kind(replace(two_seeds, sigma=1.0), against).seeds_for(1.0)
    assert seeds is not None
    truth = np.zeros((6, 1))
    truth[1 if kind is Largest else slice(1, None)] = 1.0
    generator, tries = np.random.default_rng(8), 400
    found = sum(
        kind(study(truth + generator.normal(size=(6, seeds))), against).difference().low > 0 for _ in range(tries)
    )
    # one of 400 tries scatters by 2 points of power; a seed more or less moves it by up to 4
    assert 0.74 < found / tries < 0.9
