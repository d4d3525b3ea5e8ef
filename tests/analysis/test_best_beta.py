"""The best beta of each architecture follows held-out accuracy alone, even where test accuracy says otherwise."""

import pandas as pd
import pytest

from robust_arch.analysis.best_beta import with_best_beta
from robust_arch.analysis.groups import groups
from robust_arch.errors import InputError
from robust_arch.runs import to_frame

# held-out robust accuracy by architecture and beta, of two seeds; by hand: narrow's best mean is at 3, wide's at 9
HELD_OUT = {
    ("narrow", 3): (40.0, 44.0), ("narrow", 6): (41.0, 41.0), ("narrow", 9): (30.0, 50.0),
    ("wide", 3): (42.0, 42.0), ("wide", 6): (45.0, 43.0), ("wide", 9): (46.0, 46.0),
}  # fmt: skip
LABELS = {3: "trades-beta3", 6: "trades", 9: "trades-beta9"}


def study():
    """Rows of both checkpoints, whose test accuracy is highest where the held-out one is lowest; and SAT beside it."""
    rows, held_out = [], {}
    common = {
        "study": "s", "family": "wide_resnet", "depths": "1", "widths": "16", "recipe": "r", "epochs": 10,
        "train_threat": "linf-8/255", "threat": "linf-8/255", "data": "d", "weights": "raw", "n_test": 100,
        "clean_acc": 80.0, "status": "completed",
    }  # fmt: skip
    for (arch, beta), values in HELD_OUT.items():
        for seed, value in enumerate(values):
            run = f"{arch}-{beta}-{seed}"
            held_out[run] = value
            for checkpoint in ("best", "last"):
                own = {"run_id": run, "arch": arch, "objective": LABELS[beta], "seed": seed, "checkpoint": checkpoint}
                rows.append({**common, **own, "worst_case_acc": 100 - value})
    rows.append(
        {**common, "run_id": "sat", "arch": "narrow", "objective": "sat", "checkpoint": "best", "worst_case_acc": 1.0}
    )
    return to_frame(rows), held_out


def test_each_architecture_keeps_the_runs_of_its_best_beta_by_held_out_accuracy():
    frame, held_out = study()
    rows, choices = with_best_beta(frame, held_out)
    chosen = {"narrow-3-0", "narrow-3-1", "wide-9-0", "wide-9-1", "sat"}
    assert set(rows["run_id"]) == chosen
    assert list(rows.columns) == list(frame.columns)
    pd.testing.assert_frame_equal(
        rows.drop(columns="objective"), frame[frame["run_id"].isin(chosen)].drop(columns="objective")
    )
    assert [(choice.arch, choice.beta) for choice in choices] == [("narrow", 3), ("wide", 9)]
    assert choices[0].held_out == {3: (42, 2), 6: (41, 2), 9: (40, 2)}
    assert str(choices[1]) == "wide, trades: beta 9 of 3: 42.00% (2), 6: 44.00% (2), 9: 46.00% (2)"


def test_both_architectures_are_then_in_one_group_and_apart_from_other_objectives():
    frame, _ = study()
    assert {group.key[0] for group in groups(frame)} == {"trades", "trades-beta3", "trades-beta9", "sat"}
    after = {(group.key[0], group.checkpoint): set(group.rows["arch"]) for group in groups(with_best_beta(*study())[0])}
    assert after[("trades-best_beta", "best")] == after[("trades-best_beta", "last")] == {"narrow", "wide"}
    assert after[("sat", "best")] == {"narrow"}


def test_a_tie_goes_to_the_smaller_beta_and_a_run_without_a_result_does_not_count():
    frame, held_out = study()
    held_out |= dict.fromkeys(("narrow-6-0", "narrow-6-1"), 42.0)
    del held_out["wide-9-0"], held_out["wide-9-1"]
    _, choices = with_best_beta(frame, held_out)
    assert [choice.beta for choice in choices] == [3, 6]


def test_one_beta_is_no_choice():
    frame, held_out = study()
    with pytest.raises(InputError, match="at least two betas"):
        with_best_beta(frame[frame["objective"].isin(("trades", "sat"))], held_out)
