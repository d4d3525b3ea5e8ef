"""Searches on planted tables: the expected number in closed form, schedules by hand, and nothing seen in advance."""

import json
import math
import sys

import numpy as np
import pandas as pd
import pytest
from planted_studies import frame, rows, spread, stage_changes

pytestmark = pytest.mark.usefixtures("benchmarks")


def planted(names=4, best=1):
    """Features of four levels each; accuracy falls with the number of wrong levels, and only the best has none."""
    from table_searches import Space

    levels = np.stack(np.meshgrid(*[range(4)] * names, indexing="ij"), axis=-1).reshape(-1, names)
    values = 50.0 - 3 * (levels != best).sum(axis=1)
    return Space(levels, np.zeros(names, dtype=bool), values)


def needed(space, search, seed):
    from table_searches import SEARCHES

    best = int(np.argmax(space.values))
    found = SEARCHES[search](space, len(space.values), np.random.default_rng(seed))
    return next(count for count, position in enumerate(found, 1) if position == best)


def test_random_search_needs_the_closed_form():
    """Of n in random order the first of k good ones is at place (n + 1) / (k + 1) on average."""
    from table_replay import Table, expected_random, replay

    target = np.repeat([60.0, 50.0], [4, 56])
    table = Table(np.arange(60), target, (1.0, "stated"), pd.DataFrame(index=range(60)), {})
    (found,) = replay(table, ["random"], 5, 2000).values()
    assert expected_random(table.good) == found["expected_mean"] == 12.2
    # the variance of the least of k places of n is k (n + 1) (n - k) / ((k + 1)^2 (k + 2))
    deviation = math.sqrt(4 * 61 * 56 / (25 * 6))
    assert found["mean"] == pytest.approx(12.2, abs=4 * deviation / math.sqrt(2000))
    assert found["share_reached"] == 1.0


@pytest.mark.parametrize("search", ["evolution", "gaussian_process", "tpe"])
def test_a_search_finds_the_known_best_long_before_random_search(search):
    if search == "tpe":
        pytest.importorskip("optuna")
    space = planted()
    counts = [needed(space, search, seed) for seed in range(5)]
    assert np.median(counts) < 0.7 * (len(space.values) + 1) / 2
    if search == "gaussian_process":
        assert max(counts) < 60  # of 256


@pytest.mark.parametrize("search", ["random", "evolution", "gaussian_process", "tpe"])
def test_a_search_asks_once_and_sees_no_value_before_it_asked(search):
    from dataclasses import replace

    from table_searches import SEARCHES

    if search == "tpe":
        pytest.importorskip("optuna")
    space = planted()
    asked = list(SEARCHES[search](space, 70, np.random.default_rng(3)))
    assert len(set(asked)) == len(asked) == 70
    changed = space.values.copy()  # noqa: PD011
    others = np.setdiff1d(np.arange(len(changed)), asked)
    changed[others] = np.random.default_rng(0).normal(90, 1, len(others))
    assert list(SEARCHES[search](replace(space, values=changed), 70, np.random.default_rng(3))) == asked


def test_the_gaussian_process_is_scikit_learns():
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern
    from table_searches import Hyperparameters, predicted

    rng = np.random.default_rng(0)
    x, others, y = rng.normal(size=(12, 3)), rng.normal(size=(7, 3)), rng.normal(size=12)
    kernel = ConstantKernel(0.5) * Matern(1.7, nu=2.5) + ConstantKernel(0.2) * DotProduct(1e-9)
    process = GaussianProcessRegressor(kernel, alpha=0.01 + 1e-6, optimizer=None).fit(x, y)
    mean, deviation = process.predict(others, return_std=True)
    found = predicted(x, y, others, Hyperparameters(smooth=0.5, slope=0.2, own=0.01, length=1.7))
    np.testing.assert_allclose(found[0], mean, atol=1e-8)
    np.testing.assert_allclose(found[1], deviation, atol=1e-8)


def curves(first_rung, good=0):
    """Four architectures with the same final order as at the first rung; an epoch costs 1, rungs are 1 and 2."""
    from table_searches import Curves

    seen = np.column_stack([first_rung, first_rung]).astype(float)
    return Curves(seen, (1, 2), np.ones(4), np.arange(4) == good, eta=2)


@pytest.mark.parametrize(("workers", "ended"), [(1, 6.0), (2, 3.0), (4, 2.0)])
def test_halving_by_hand(workers, ended):
    from table_searches import halving

    made = halving(curves([4, 3, 2, 1]), [0, 1, 2, 3], workers)
    assert (made.spent, made.ended, made.chosen) == (6.0, ended, 0)
    # the first of the two full runs begins when all four short ones have ended
    assert made.found == 4 / workers + 1


def test_asha_by_hand():
    from table_searches import asha

    # one worker: 0, 1, then 0 is the best of two and goes on; 2, 3, then 1 does
    made = asha(curves([4, 3, 2, 1]), [0, 1, 2, 3], 1)
    assert (made.spent, made.ended, made.found, made.chosen) == (6.0, 6.0, 3.0, 0)
    # in rising order 1 goes on too early; at the end 2 and 3 are the best two of four
    made = asha(curves([1, 2, 3, 4], good=3), [0, 1, 2, 3], 1)
    assert (made.spent, made.chosen) == (7.0, 3)
    # all four at once: from then on it is halving
    made = asha(curves([1, 2, 3, 4], good=3), [0, 1, 2, 3], 4)
    assert (made.spent, made.ended, made.found) == (6.0, 2.0, 2.0)


def test_repetitions_that_did_not_get_there_are_infinite_in_quantiles():
    from table_replay import summary

    found = summary(np.array([1.0, 2.0, 3.0, math.inf, math.inf]), 10)
    assert found["median"]["value"] == 3.0
    assert found["median"]["interval"] == [1.0, None]  # resamples reach the infinite ones
    assert found["quantile_90"]["value"] is None
    assert found["share_reached"] == 0.6
    low, high = found["share_interval"]
    assert low < 0.6 < high


def test_cheap_measurements_are_correlated_overall_and_in_the_best_tenth():
    from table_replay import Table, correlations

    target = np.arange(200.0)
    cheap = {"same": target**3, "up_to_the_top": np.where(target < 180, target, 380 - target), "none": np.ones(200)}
    table = Table(target, target, (0.1, "stated"), pd.DataFrame(), cheap)
    found = correlations(table)
    assert (found["same"]["overall"]["value"], found["same"]["top_tenth"]["value"]) == (1.0, 1.0)
    assert found["up_to_the_top"]["overall"]["value"] > 0.9
    assert found["up_to_the_top"]["top_tenth"] == {"n": 20, "value": -1.0, "interval": [-1.0, -1.0]}
    assert found["none"]["overall"]["value"] is None


def test_a_results_csv_has_noise_from_its_seeds_and_features_from_its_stages(tmp_path):
    from table_replay import read_table

    specs = stage_changes("widths")
    frame(rows(specs, spread(specs))).to_csv(tmp_path / "results.csv", index=False)
    table = read_table(tmp_path / "results.csv", None, [], 0, None, None)
    # each architecture has 0, 2 and 4 points more in its three seeds: a standard deviation of 2
    assert table.deviation == (pytest.approx(2.0), "repeated runs, 14 degrees of freedom")
    assert table.noise == pytest.approx(2 * math.sqrt(2))
    assert table.target.tolist() == [62.0 + 2 * place for place in range(7)]
    assert table.good.sum() == 2  # 74 and 72
    assert list(table.features) == ["widths 0", "widths 1", "widths 2"]  # depths do not differ
    assert table.space.ordered.all()
    assert table.space.levels.max(axis=0).tolist() == [2, 2, 2]


MAPPING = """
source: nobody
licence: none
unit: percent
missing: ["0"]
architecture: {id: "net-${cell}", family: planted}
epoch: {column: epoch, best: robust}
values: {data: made-up, threat: linf-8/255, n_test: 100}
evaluations: [{checkpoint: best, clean: clean, attacks: {pgd: robust}}]
"""


@pytest.fixture
def table_of_epochs(tmp_path):
    """Thirty cells, nine epochs; the attack ran at the last one only, as in some published tables."""
    lines = [
        f"{cell},{epoch},{30 + cell + epoch},{20 + cell if epoch == 8 else 0}"
        for cell in range(30)
        for epoch in range(9)
    ]
    (tmp_path / "t.csv").write_text("cell,epoch,clean,robust\n" + "\n".join(lines) + "\n")
    (tmp_path / "m.yaml").write_text(MAPPING)
    return tmp_path


def test_curves_are_those_of_clean_accuracy_where_the_attack_did_not_run(table_of_epochs):
    from table_replay import read_table, rungs_compared

    table = read_table(table_of_epochs / "t.csv", str(table_of_epochs / "m.yaml"), [], 0, None, None)
    assert table.curves.shape == (30, 9)
    assert table.curves[:2, 0].tolist() == [30.0, 31.0]
    assert table.target.tolist() == [20.0 + cell for cell in range(30)]
    assert "no run is repeated" in table.deviation[1]
    assert table.deviation[0] == pytest.approx(math.sqrt(49 * 51 / 100))  # 100 images, the best 49%
    found = rungs_compared(table, plan=9, eta=3, least=1, repetitions=4)
    assert found["rungs"] == [1, 3, 9]
    # 9 for one epoch, 3 for two more, 1 for six more
    assert found["workers_1"]["halving"]["epochs_spent"]["value"] == 9 + 6 + 6
    assert found["workers_1"]["halving"]["points_below_best"]["value"] == 0.0
    assert found["workers_4"]["halving"]["time_to_the_end"]["value"] == 3 + 2 + 6


def run(monkeypatch, *arguments):
    import search

    monkeypatch.setattr(sys, "argv", ["search.py", *map(str, arguments)])
    search.main()


def test_the_command_writes_every_number(table_of_epochs, monkeypatch, capsys):
    given = ["--table", table_of_epochs / "t.csv", "--columns", table_of_epochs / "m.yaml", "--repetitions", 5]
    run(monkeypatch, *given, "--noise", 0.5, "--out", table_of_epochs / "found.json")
    found = json.loads((table_of_epochs / "found.json").read_text())
    assert found["within_noise_of_best"] == 1
    assert found["noise_from"] == "stated"
    assert set(found["searches"]) == {"random"}  # names alone tell the others nothing
    assert found["rungs"]["plan"] == 30
    assert "written" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--searches", "evolution"], "--searches = ['evolution']: expected random"),
        (["--features", "ops_*"], "--features = 'ops_*': expected columns of the table: cell, epoch"),
        (["--evaluation", "3"], "--evaluation = 3: expected from 0 to 0"),
        (["--curve", "loss"], "--curve = 'loss': expected a column of the table"),
    ],
)
def test_bad_input_is_named(table_of_epochs, monkeypatch, arguments, message):
    with pytest.raises(SystemExit, match=message.replace("[", r"\[").replace("*", r"\*")):
        run(monkeypatch, "--table", table_of_epochs / "t.csv", "--columns", table_of_epochs / "m.yaml", *arguments)
