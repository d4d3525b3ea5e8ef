"""The statistics behind the claims against scipy's, or against a count by hand."""

import math
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from robust_arch.analysis.claims.concordance import Concordance, architectures_for, concordance, deviation
from robust_arch.analysis.claims.differences import Contrast, Largest, Pairs
from robust_arch.analysis.claims.measured import Measured
from robust_arch.analysis.claims.seed_model import fit, noisy, unequal
from robust_arch.architectures import ArchSpec


def study(values: np.ndarray) -> Measured:
    """Of (A, S) accuracies, NaN where there is no run; names and costs play no part here."""
    specs = (ArchSpec("wide_resnet", (1, 1, 1), (8, 16, 32)),) * len(values)
    return Measured(tuple(map(str, range(len(values)))), specs, fit(values), {}, {})


def pairs(*each: tuple[int, int]) -> Pairs:
    return Pairs(*np.array(each).T)


def rising(count: int) -> np.ndarray:
    """Costs that all differ, in rising order."""
    return np.triu(np.ones((count, count), dtype=bool), 1)


@pytest.mark.parametrize("count", [5, 6, 7, 20])
def test_tau_is_kendalls_and_its_test_exact_where_there_are_few(count: int) -> None:
    accuracy = np.random.default_rng(count).normal(size=count)
    expected = stats.kendalltau(np.arange(count), accuracy, method="exact", alternative="less")
    found = concordance(rising(count), accuracy)
    assert found.tau == pytest.approx(expected.statistic)
    if count <= 7:
        assert found.p_falls == pytest.approx(expected.pvalue)


def test_random_orders_agree_with_the_exact_test_within_their_own_noise() -> None:
    accuracy = np.array([9, 7, 8, 10, 5, 6, 3, 4, 1, 2, 0.5, 0.7, 11, 0.2])
    expected = stats.kendalltau(np.arange(14), accuracy, method="exact", alternative="less").pvalue
    # 4,999 draws of a share p scatter by sqrt(p (1 - p) / 4999)
    allowed = 4 * math.sqrt(expected * (1 - expected) / 4999) + 1 / 5000
    assert concordance(rising(14), accuracy).p_falls == pytest.approx(expected, abs=allowed)


def test_pairs_of_equal_cost_do_not_count() -> None:
    # costs 1, 1, 2: the pairs (1, 2) and (1, 2'); accuracies 3, 1, 2: one falls, one rises
    more = np.array([[0, 0, 1], [0, 0, 1], [0, 0, 0]], dtype=bool)
    found = concordance(more, np.array([3.0, 1.0, 2.0]))
    assert (found.tau, found.pairs) == (0, 2)
    # all six orders: tau is -1 where the last is the least (2 of 6), 0 where it is between, 1 where it is the most
    taus = sorted((order[2] > order[0]) / 1 + (order[2] > order[1]) - 1 for order in permutations(range(3)))
    assert taus == [-1, -1, 0, 0, 1, 1]
    assert found.p_falls == pytest.approx(4 / 6)


def assert_exact(found: Concordance, tau: float, taus: list[float]) -> None:
    """The interval leaves out zero just where the permutation test rejects; taus: of every order."""
    assert found.tau == pytest.approx(tau)
    as_high, as_low = np.mean(np.array(taus) >= tau - 1e-9), np.mean(np.array(taus) <= tau + 1e-9)
    assert found.p_falls == pytest.approx(as_low)
    assert (found.low > 1e-9) == (as_high <= 0.025)
    assert (found.high < -1e-9) == (as_low <= 0.025)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6])
def test_the_interval_of_tau_leaves_out_zero_just_where_the_test_rejects(count: int) -> None:
    orders = [np.array(order) for order in permutations(range(count))]
    taus = [float(stats.kendalltau(np.arange(count), order).statistic) for order in orders]
    for order, tau in zip(orders, taus, strict=True):
        assert_exact(concordance(rising(count), order), tau, taus)


@pytest.mark.parametrize("seed", range(40))
def test_the_same_where_costs_and_accuracies_tie(seed: int) -> None:
    generator = np.random.default_rng(seed)
    cost, accuracy = generator.integers(0, 3, 6), generator.integers(0, 3, 6)

    def tau(order: np.ndarray | tuple[int, ...]) -> float:
        signs = [np.sign(order[j] - order[i]) for i in range(6) for j in range(6) if cost[j] > cost[i]]
        return float(np.mean(signs))

    found = concordance(cost[None, :] > cost[:, None], accuracy)
    assert_exact(found, tau(accuracy), [tau(order) for order in permutations(accuracy)])


@pytest.mark.parametrize("seed", range(10))
def test_the_variance_for_many_architectures_is_that_of_every_order(seed: int) -> None:
    generator = np.random.default_rng(seed)
    cost, ranks = generator.integers(0, 6, 6), generator.integers(0, 5, 6)
    more = cost[None, :] > cost[:, None] + 1  # costs of neighbours are equal, as within a tolerance
    rows, columns = np.nonzero(more)
    orders = np.array(list(permutations(ranks)))
    every = np.sign(orders[:, columns] - orders[:, rows]).sum(axis=1)
    assert every.mean() == pytest.approx(0)
    assert deviation(more, ranks) == pytest.approx(every.std())


def test_the_limit_of_many_agrees_with_drawn_orders_and_with_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    for count, slope in ((40, 0.0), (40, -0.3), (100, 0.1)):
        accuracy = slope * np.arange(count) / count * 4 + generator.normal(size=count)
        drawn = concordance(rising(count), accuracy)
        with monkeypatch.context() as patch:
            patch.setattr("robust_arch.analysis.claims.concordance._MOST_PAIRS", 0)
            limit = concordance(rising(count), accuracy)
        assert limit.tau == pytest.approx(drawn.tau)
        assert limit.pairs == drawn.pairs
        for name in ("low", "high", "p_falls"):
            assert getattr(limit, name) == pytest.approx(getattr(drawn, name), abs=0.02)
    accuracy = generator.normal(size=400)
    expected = stats.kendalltau(np.arange(400), accuracy, method="asymptotic", alternative="less")
    found = concordance(rising(400), accuracy)  # 79,800 pairs
    assert (found.tau, found.p_falls) == pytest.approx((expected.statistic, expected.pvalue))


def test_how_many_architectures_is_kendalls_variance() -> None:
    # the variance at n is 2 (2 n + 5) / (9 n (n - 1)); 1.96 + 0.84 standard deviations fit into 1/3 first at n
    sds = {n: math.sqrt(2 * (2 * n + 5) / (9 * n * (n - 1))) for n in range(2, 100)}
    bar = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    assert architectures_for(1 / 3, 0.8) == next(n for n, sd in sds.items() if bar * sd <= 1 / 3)


def designed(runs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Architecture and seed of each run, (N, 2), and the dummy variables of both, (N, A + S)."""
    where = np.argwhere(~np.isnan(runs))
    design = np.zeros((len(where), sum(runs.shape)))
    design[np.arange(len(where)), where[:, 0]] = 1
    design[np.arange(len(where)), len(runs) + where[:, 1]] = 1
    return where, design


def least_squares(runs: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, int]:
    """Differences to the first architecture, their covariance in units of the noise's, the noise and its degrees."""
    where, design = designed(runs)
    target = runs[tuple(where.T)]
    solution = np.linalg.pinv(design)
    degrees = len(where) - int(np.linalg.matrix_rank(design))
    sigma = math.sqrt(np.sum((target - design @ solution @ target) ** 2) / degrees)
    contrast = np.hstack(
        [-np.ones((len(runs) - 1, 1)), np.eye(len(runs) - 1), np.zeros((len(runs) - 1, runs.shape[1]))]
    )
    return contrast @ solution @ target, contrast @ solution @ solution.T @ contrast.T, sigma, degrees


GAPS = np.random.default_rng(0).normal(size=(5, 4))
GAPS[[0, 1, 3, 3], [3, 0, 1, 2]] = np.nan


@pytest.mark.parametrize("runs", [np.random.default_rng(1).normal(size=(4, 3)), GAPS], ids=["complete", "gaps"])
def test_the_model_of_seeds_is_the_least_squares_fit(runs: np.ndarray) -> None:
    differences, covariance, sigma, degrees = least_squares(runs)
    found = fit(runs)
    assert found.values[1:] - found.values[0] == pytest.approx(differences)
    assert (found.sigma, found.degrees) == (pytest.approx(sigma), degrees)
    own = np.diag(1 / found.counts) + found.loads @ found.loads.T
    step = np.hstack([-np.ones((len(runs) - 1, 1)), np.eye(len(runs) - 1)])
    assert step @ own @ step.T == pytest.approx(covariance)


def test_without_a_common_seed_runs_scatter_about_their_mean() -> None:
    runs = np.array([[1.0, 3.0, np.nan, np.nan], [np.nan, np.nan, 5.0, 8.0]])
    found = fit(runs)  # squares about the means 2 and 6.5: 2 + 4.5 on 2 degrees of freedom
    assert found.values.tolist() == [2.0, 6.5]
    assert (found.sigma, found.degrees) == (pytest.approx(math.sqrt(3.25)), 2)


def test_noise_is_unknown_from_one_run_each_and_at_least_that_of_counting_images() -> None:
    found = fit(np.array([[1.0], [2.0], [4.0]]))
    assert (found.sigma, found.degrees) == (None, 0)
    # 50 images: steps of 2 points, uniform rounding has a standard deviation of 2 / sqrt(12)
    assert fit(np.full((3, 2), 50.0), step=2.0).sigma == pytest.approx(2 / math.sqrt(12))


def test_architectures_that_scatter_more_are_named() -> None:
    values = np.random.default_rng(0).normal(size=(12, 3))
    assert noisy(fit(values)) == []
    values[4] *= 12
    assert noisy(fit(values)) == [4]
    values[7] *= 60
    assert noisy(fit(values)) == [7, 4]


def test_a_seed_that_only_the_best_has_does_not_make_it_noisy() -> None:
    generator = np.random.default_rng(2)
    called = 0
    for _ in range(200):
        runs = generator.normal(0, 2, (24, 1)) + generator.normal(0, 0.5, (24, 3))
        best = np.argsort(-runs[:, :2].mean(axis=1))[:2]
        runs[np.delete(np.arange(24), best), 2] = np.nan
        called += bool(set(noisy(fit(runs))) & set(best))
    assert called <= 4  # of 200 one is expected to be any of the 24


def test_scatter_that_test_images_cannot_tell_from_none_is_not_noisy() -> None:
    draws = np.random.default_rng(3).normal(50, 0.5, size=(200, 24, 3))
    counted = np.round(draws / 2) * 2  # of 50 images
    assert sum(bool(noisy(fit(runs, 2.0), 2.0)) for runs in counted) <= 6  # 2 expected
    assert not any(unequal(fit(runs, 2.0), 2.0) for runs in counted[:50])


@pytest.mark.parametrize("runs", ["complete", "gaps"])
def test_degrees_of_freedom_are_shared_out_as_the_residuals_projection_has_them(runs: str) -> None:
    table = np.random.default_rng(1).normal(size=(4, 3)) if runs == "complete" else GAPS
    where, design = designed(table)
    own = 1 - np.diag(design @ np.linalg.pinv(design))
    found = fit(table)
    assert found.freedoms == pytest.approx(np.bincount(where[:, 0], weights=own))
    assert found.scatter.sum() == pytest.approx(found.degrees * (found.sigma or 0) ** 2)


def test_unequal_scatter_is_bartletts_test() -> None:
    # every architecture with seeds of its own: residuals about its mean, as in the one-way test
    rejected = 0
    for draw in range(60):
        generator = np.random.default_rng(draw)
        samples = [generator.normal(0, 1 + draw / 30 * (row % 2), 6) for row in range(8)]
        expected = stats.bartlett(*samples).pvalue
        if not 0.005 < expected < 0.02:  # chi-squared is an approximation, and the draws have noise
            assert unequal(fit(apart(samples))) == (expected < 0.01)
            rejected += expected < 0.01
    assert 5 < rejected < 50


def test_one_in_a_hundred_even_studies_is_called_uneven() -> None:
    draws = np.random.default_rng(1).normal(size=(1000, 24, 3))
    called = sum(bool(noisy(fit(values))) for values in draws)
    assert 2 <= called <= 20  # 10 expected, with a standard deviation of 3.1
    assert 2 <= sum(unequal(fit(values)) for values in draws) <= 20


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


def apart(samples: list[np.ndarray]) -> np.ndarray:
    """Each architecture with seeds of its own, so that no effect of a seed can be taken out, as in one-way tests."""
    runs = np.full((len(samples), sum(map(len, samples))), np.nan)
    place = 0
    for row, sample in zip(runs, samples, strict=True):
        row[place : place + len(sample)] = sample
        place += len(sample)
    return runs


def test_many_against_one_is_dunnetts_test() -> None:
    generator = np.random.default_rng(5)
    samples = [generator.normal(size=size) + shift for size, shift in ((6, 0), (4, 0), (6, 1.2), (4, 0), (6, 0))]
    expected = stats.dunnett(*samples[1:], control=samples[0], alternative="greater")
    found = Largest(study(apart(samples)), pairs(*((other, 0) for other in range(1, 5))))
    assert found.best == int(np.argmax(expected.statistic))
    assert found.difference().p_value == pytest.approx(min(expected.pvalue), abs=0.01)


def test_all_against_all_is_tukeys_test() -> None:
    generator = np.random.default_rng(6)
    samples = [generator.normal(size=size) + shift for size, shift in ((4, 0), (5, 0.4), (5, 1.5), (5, 0.2))]
    expected = stats.tukey_hsd(*samples)
    found = Largest(study(apart(samples)), pairs(*permutations(range(4), 2))).difference()
    # the largest of all ordered differences is the studentised range, whose p-value is two-sided by itself
    assert found.p_value == pytest.approx(expected.pvalue.min(), abs=0.012)


AGAINST = pairs(*((other, 0) for other in range(1, 6)))


def unit_noise(kind: type[Contrast] | type[Largest]) -> Contrast | Largest:
    two_seeds = study(np.random.default_rng(7).normal(size=(6, 2)))
    return kind(replace(two_seeds, model=replace(two_seeds.model, sigma=1.0)), AGAINST)


@pytest.mark.parametrize("kind", [Contrast, Largest])
def test_the_number_of_seeds_shows_the_effect_with_the_stated_power(kind: type[Contrast] | type[Largest]) -> None:
    seeds = unit_noise(kind).seeds_to_show(1.0)
    assert seeds is not None
    truth = np.zeros((6, 1))
    truth[1 if kind is Largest else slice(1, None)] = 1.0
    draws = truth + np.random.default_rng(8).normal(size=(400, 6, seeds))
    found = np.mean([kind(study(runs), AGAINST).difference().low > 0 for runs in draws])
    # one of 400 tries scatters by 2 points of power; a seed more or less moves it by up to 4
    assert 0.74 < found < 0.9


@pytest.mark.parametrize("kind", [Contrast, Largest])
def test_the_number_of_seeds_excludes_an_absent_effect_with_the_stated_power(
    kind: type[Contrast] | type[Largest],
) -> None:
    seeds = unit_noise(kind).seeds_to_settle(1.0)
    assert seeds is not None
    assert seeds >= (unit_noise(kind).seeds_to_show(1.0) or np.inf)
    draws = np.random.default_rng(9).normal(size=(400, 6, seeds))
    excluded = np.mean([kind(study(runs), AGAINST).difference().bound < 1.0 for runs in draws])
    assert 0.74 < excluded < 0.9


def test_equal_means_are_tied_though_floating_point_tells_them_apart() -> None:
    accuracy = np.array([50.1, 50.1 + 1e-13, 50.1 - 1e-13, 50.0])
    exact = np.array([50.1, 50.1, 50.1, 50.0])
    assert concordance(rising(4), accuracy) == concordance(rising(4), exact)
    assert concordance(rising(4), exact).tau == pytest.approx(-3 / 6)


def test_without_two_accuracies_there_is_no_order() -> None:
    with pytest.raises(ValueError, match="accuracy"):
        concordance(rising(3), np.full(3, 50.0))


def test_the_number_of_seeds_is_at_least_what_the_others_have() -> None:
    runs = np.random.default_rng(10).normal(size=(6, 5))
    runs[0, 1:] = np.nan
    needed = Contrast(study(runs), pairs((1, 2))).seeds_to_show(5.0)
    assert needed == 5  # two would do, and five is what the others have
