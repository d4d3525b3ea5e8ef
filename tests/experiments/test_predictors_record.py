"""The recorded correlations of predictors, computed again from the recorded files by other means."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau, spearmanr

from experiments.predictors.correlate import NAMES, SOURCES
from experiments.recorded import STUDIES

FOLDER = Path(__file__).parents[2] / "experiments" / "predictors"


def joined(family):
    results, predictors = (
        pd.concat([pd.read_csv(STUDIES / name / file) for name in SOURCES[family]]).drop_duplicates(keys)
        for file, keys in (("results.csv", ["run_id", "checkpoint"]), ("predictors.csv", ["run_id"]))
    )
    best = results[(results["checkpoint"] == "best") & (results["family"] == family)]
    return best.merge(predictors[["run_id", *NAMES]], on="run_id", validate="one_to_one")


@pytest.mark.parametrize("family", SOURCES)
@pytest.mark.parametrize("name", ["params", "macs", *NAMES])
def test_the_recorded_correlations_are_those_of_the_recorded_runs(family, name):
    rows = joined(family)
    rows[name] = np.log10(rows[name])
    means = rows.groupby("arch")[[name, "worst_case_acc"]].mean()
    recorded = pd.read_csv(FOLDER / "correlations.csv").query("family == @family and predictor == @name")
    values = recorded.set_index("statistic")["value"]
    # means of equal counts of images may differ in their last digit, and ties with them
    assert values["spearman"] == pytest.approx(spearmanr(means.round(9)).statistic, abs=0.005)
    assert values["kendall"] == pytest.approx(kendalltau(*means.round(9).to_numpy().T).statistic, abs=0.005)
    assert set(recorded["n"]) == {len(means), -(-len(means) // 10)}
    assert f"{values['spearman']:+.2f}" in (FOLDER / "README.md").read_text(encoding="utf-8")
