"""What is marked of a finished training: rows of accuracies whose verdict is plain."""

import pytest

from robust_arch.training.flags import catastrophic_overfitting, robust_to_one_step_only, training_flags


def rows(*epochs):
    """(clean, under the selection attack, under one step) of each epoch, in percent."""
    keys = ("val_clean_acc", "val_robust_acc", "val_fgsm_acc")
    return [{"epoch": float(i), **dict(zip(keys, values, strict=True))} for i, values in enumerate(epochs)]


COLLAPSE = rows((50, 30, 35), (60, 36, 42), (75, 1, 70), (80, 0, 80))


def test_robustness_that_collapses_while_one_step_looks_better():
    assert catastrophic_overfitting(COLLAPSE, 1000) == 2
    (flag,) = training_flags(COLLAPSE, 10, 1000)
    assert flag.startswith("catastrophic overfitting: at epoch 3 ")
    for number in ("1.0%", "36.0% at epoch 2", "70.0% after 42.0%", "n=1000"):
        assert number in flag


def test_accuracy_under_one_step_need_not_rise():
    """Training against another single step than the one that is looked at moves this one a little."""
    assert catastrophic_overfitting(rows((60, 36, 42), (80, 0, 41)), 1000) == 1


@pytest.mark.parametrize(
    ("history", "held_out"),
    [
        (rows((50, 30, 35), (60, 36, 42), (70, 40, 47)), 1000),  # training as it should be
        (rows((50, 30, 35), (60, 36, 42), (80, 25, 44)), 1000),  # robust overfitting, which is slow
        (rows((50, 30, 35), (10, 1, 2), (11, 0, 1)), 1000),  # a collapse of everything
        (rows((30, 3, 4), (40, 1, 6)), 30),  # one image of 30 after one of 30
        (rows((90, 5, 15), (95, 0, 30), (98, 0, 40)), 240),  # natural training: one step breaks most images
        (rows((60, 40, 50), (62, 42, 45)), 60),  # 3 to 10 points between one step and many
        (rows((10, 0, 10), (10, 10, 10)), 60),  # at chance
    ],
    ids=["well", "robust overfitting", "everything", "few images", "natural", "honest pair", "chance"],
)
def test_other_histories_are_not_marked(history, held_out):
    assert catastrophic_overfitting(history, held_out) is None
    assert robust_to_one_step_only(history, held_out) is None


@pytest.mark.parametrize(
    ("history", "held_out", "epoch"),
    [
        (rows(*[(97, 0, 95)] * 3), 240, 0),
        (rows(*[(97, 0, 95)] * 3), 60, 0),
        (rows((70, 5, 30), (90, 2, 60), (95, 0, 90)), 240, 1),
    ],
)
def test_a_run_that_was_never_robust(history, held_out, epoch):
    assert robust_to_one_step_only(history, held_out) == epoch
    (flag,) = training_flags(history, 10, held_out)
    assert flag.startswith(f"one step overstates robustness: at epoch {epoch + 1} ")
    assert f"under one step and {history[epoch]['val_robust_acc']:.1f}% under the selection attack" in flag


def test_rows_of_a_version_that_did_not_look():
    history = [{key: value for key, value in row.items() if key != "val_fgsm_acc"} for row in COLLAPSE]
    assert catastrophic_overfitting(history, 1000) is None


def test_both_flags():
    (collapsed, overfitted) = training_flags(rows((50, 40, 41), (10, 0, 60)), 10, 1000)
    assert collapsed.startswith("collapsed: held-out clean accuracy 10.0%")
    assert overfitted.startswith("catastrophic overfitting: at epoch 2")
