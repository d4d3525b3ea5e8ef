"""Rank correlations of predictors, against scipy and on planted tables."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau, spearmanr

from robust_arch.analysis.effects import designs, estimate_effects
from robust_arch.analysis.groups import only_group
from robust_arch.analysis.predictors.correlations import correlations, kendall, partial_spearman, spearman
from robust_arch.analysis.predictors.reading import with_predictors
from robust_arch.analysis.predictors.wording import told
from robust_arch.architectures import ArchSpec
from robust_arch.errors import InputError


def table(n=40, seed=0):
    generator = np.random.default_rng(seed)
    params = generator.permutation(np.arange(1, n + 1)) * 1000.0
    macs = generator.permutation(np.arange(1, n + 1)) * 5000.0
    own = generator.normal(size=n)
    robust = 40 + params / 2000 + 3 * own
    return pd.DataFrame(
        {"arch": [f"a{i}" for i in range(n)], "params": params, "macs": macs, "worst_case_acc": robust,
         "own": own, "proxy": params * 2, "noise": generator.normal(size=n), "empty": np.nan}
    )  # fmt: skip


def test_correlations_are_those_of_scipy():
    generator = np.random.default_rng(3)
    first, second = generator.normal(size=(2, 30)).round(1)  # with ties
    assert spearman(first, second) == pytest.approx(spearmanr(first, second).statistic)
    assert kendall(first, second) == pytest.approx(kendalltau(first, second).statistic)
    assert np.isnan(spearman(first, np.ones(30)))


def test_partial_correlation_of_one_held_variable_is_the_textbook_formula():
    generator = np.random.default_rng(4)
    held = generator.normal(size=50)
    first, second = held + generator.normal(size=50), held + generator.normal(size=50)
    a, b, c = (spearmanr(*pair).statistic for pair in ((first, second), (first, held), (second, held)))
    expected = (a - b * c) / np.sqrt((1 - b**2) * (1 - c**2))
    assert partial_spearman(first, second, held[:, None]) == pytest.approx(expected)


def test_what_a_predictor_adds_to_the_costs():
    found = {each.name: each for each in correlations(table(), ["own", "proxy", "noise", "empty"], draws=100)}
    assert found["own"].beyond_costs.low > 0.5
    assert found["proxy"].spearman.value == pytest.approx(found["params"].spearman.value)
    assert found["proxy"].beyond_costs is None  # it is a function of the parameters
    assert found["noise"].beyond_costs.low < 0 < found["noise"].beyond_costs.high
    assert (found["empty"].n, found["empty"].kendall) == (0, None)
    assert (found["own"].top_n, found["own"].top) == (4, None)  # too few


def test_seeds_are_averaged():
    twice = pd.concat([table().assign(own=table()["own"] + shift) for shift in (-1, 1)])
    assert correlations(twice, ["own"], draws=50)[2].spearman.value == pytest.approx(
        correlations(table(), ["own"], draws=50)[2].spearman.value
    )


@pytest.mark.slow
def test_the_interval_covers_the_truth_of_noise():
    inside = 0
    for seed in range(40):
        generator = np.random.default_rng(seed)
        frame = table(20, seed).assign(own=generator.normal(size=20))
        found = correlations(frame[["arch", "params", "macs", "worst_case_acc", "own"]], ["own"], draws=100)[-1]
        inside += found.spearman.low <= 0 <= found.spearman.high
    assert inside >= 34  # robust accuracy does not depend on it: 95% of 40, less three standard deviations


def test_the_table_fits_into_80_columns(planted_rows):
    text = told(planted_rows, correlations(planted_rows.rows, ["own"], draws=50))
    assert max(map(len, text.splitlines())) <= 80
    assert "49 architectures, 49 runs." in text
    assert [line.split()[0] for line in text.splitlines() if "]" in line][:3] == ["params", "macs", "own"]


def test_predictors_are_joined_as_logarithms(tmp_path):
    (tmp_path / "predictors.csv").write_text(
        "run_id,seed,batch,params,macs,grad_norm\nr1,0,32,1,1,100\nr2,0,32,1,1,inf\nr3,0,32,1,1,none\n"
    )
    frame = pd.DataFrame({"run_id": ["r1", "r2", "r3", "r4"]})
    joined = with_predictors(frame, [tmp_path], ["grad_norm"])
    assert joined["grad_norm"].tolist()[0] == pytest.approx(2.0)
    assert joined["grad_norm"].isna().tolist() == [False, True, True, True]
    with pytest.raises(InputError, match=r"--predictors = 'colour': expected some of grad_norm"):
        with_predictors(frame, [tmp_path], ["colour"])
    with pytest.raises(InputError, match=r"robust-arch predictors"):
        with_predictors(frame, [tmp_path / "elsewhere"], ["grad_norm"])


def test_effects_take_a_predictor_as_a_variable(planted_rows):
    found = estimate_effects(designs(planted_rows, ["own"])[0], 50)
    assert found.predictors["own"].value == pytest.approx(2.0, abs=0.3)
    assert found.predictors["own"].low > 1.5


@pytest.fixture
def planted_rows():
    from planted import planted

    specs = [ArchSpec("wide_resnet", (1, 1, 1), (16, 8 * k, 8 * j)) for k in range(2, 9) for j in range(2, 9)]
    group = planted(specs, lambda spec, priced: np.log2(priced.params), seeds=1, sd=0.2)
    own = np.random.default_rng(0).normal(size=len(specs))
    rows = group.rows.assign(own=own, worst_case_acc=group.rows["worst_case_acc"] + 2 * own / own.std())
    return only_group(rows)


@pytest.mark.parametrize("content", ["", "run_id,grad_norm\na,1\n"])
def test_a_damaged_file_of_predictors_is_one_error(content, tmp_path):
    (tmp_path / "predictors.csv").write_text(content)
    with pytest.raises(InputError, match=r"^predictors\.csv = '.*': expected a (CSV )?file"):
        with_predictors(pd.DataFrame({"run_id": ["a"]}), [tmp_path], ["grad_norm"])
