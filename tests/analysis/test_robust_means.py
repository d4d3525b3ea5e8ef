"""One wild run moves neither its architecture's value nor the scatter of all, and is named."""

import numpy as np
import pandas as pd
import pytest

from robust_arch.analysis.robust_means import robust_means


def rows(values):
    listed = [(arch, f"{arch}{place}", value) for arch, own in values.items() for place, value in enumerate(own)]
    return pd.DataFrame(listed, columns=["arch", "run_id", "worst_case_acc"])


def test_without_wild_runs_it_is_nearly_the_mean_and_the_scatter_the_standard_deviation():
    generator = np.random.default_rng(0)
    values = {f"a{place}": list(50 + place + generator.normal(0, 0.5, 3)) for place in range(200)}
    found = robust_means(rows(values))
    means = np.array([np.mean(own) for own in values.values()])
    assert np.abs(found.centres.to_numpy() - means).max() < 0.5
    assert np.std(found.centres.to_numpy() - means) < 0.12
    assert found.scatter == pytest.approx(0.5, rel=0.1)
    assert found.wild == ()


def test_one_wild_run_of_three_counts_little_and_is_named():
    values = {f"a{place}": [50.0 + place, 50.3 + place, 49.8 + place] for place in range(10)}
    values["a4"][1] = 12.0
    found = robust_means(rows(values))
    assert found.centres["a4"] == pytest.approx(53.7, abs=0.4)
    assert len(found.wild) == 1
    assert "a4, run a41: worst_case_acc 12.00, its other runs 54.00, 53.80" in found.wild[0]


def test_one_run_each_is_its_own_value():
    found = robust_means(rows({"a": [50.0], "b": [51.0]}))
    assert found.centres.to_dict() == {"a": 50.0, "b": 51.0}
    assert found.scatter is None
