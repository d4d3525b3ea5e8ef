"""Warnings about a finished training: histories of accuracies whose verdict is plain."""

import pytest

from robust_arch.attacks import PGD
from robust_arch.objectives.mart import MART
from robust_arch.objectives.natural import Natural
from robust_arch.objectives.sat import SAT
from robust_arch.objectives.trades import TRADES
from robust_arch.training.flags import training_flags

OVERFITTED, OVERSTATED = "catastrophic overfitting: at epoch {} ", "one step overstates robustness: at epoch {} "
COLLAPSE = ((50, 30, 35), (60, 36, 42), (75, 1, 70), (80, 0, 80))


def rows(*epochs):
    """(clean, under the selection attack, under one step) of each epoch, in percent."""
    keys = ("val_clean_acc", "val_robust_acc", "val_fgsm_acc")
    return [{"epoch": float(i), **dict(zip(keys, values, strict=True))} for i, values in enumerate(epochs)]


def flags(epochs, held_out=1000, adversarial=True):
    return training_flags(rows(*epochs), 10, held_out, adversarial=adversarial)


@pytest.mark.parametrize(
    ("history", "held_out", "beginning", "parts"),
    [
        # robustness collapses while one step looks better
        (COLLAPSE, 1000, OVERFITTED.format(3), ("1.0%", "36.0% at epoch 2", "70.0% after 42.0%", "n=1000")),
        # accuracy under one step need not rise: training against another single step moves this one a little
        (((60, 36, 42), (80, 0, 41)), 1000, OVERFITTED.format(2), ()),
        # never robust
        ([(97, 0, 95)] * 3, 240, OVERSTATED.format(1), ("95.0% under one step and 0.0%",)),
        ([(97, 0, 95)] * 3, 60, OVERSTATED.format(1), ()),
        (((70, 5, 30), (90, 2, 60), (95, 0, 90)), 240, OVERSTATED.format(2), ("60.0% under one step and 2.0%",)),
    ],
)
def test_flagged_histories(history, held_out, beginning, parts):
    (flag,) = flags(history, held_out)
    assert flag.startswith(beginning)
    assert all(part in flag for part in parts)


@pytest.mark.parametrize(
    ("history", "held_out"),
    [
        (((50, 30, 35), (60, 36, 42), (70, 40, 47)), 1000),
        (((50, 30, 35), (60, 36, 42), (80, 25, 44)), 1000),
        (((50, 30, 35), (20, 1, 2), (21, 0, 1)), 1000),
        (((30, 3, 4), (40, 1, 6)), 30),  # one image of 30 after one of 30
        (((90, 5, 15), (95, 0, 30), (98, 0, 40)), 240),  # one step breaks most images
        (((60, 40, 50), (62, 42, 45)), 60),  # 3 to 10 points between one step and many
    ],
    ids=["well", "robust overfitting, which is slow", "everything", "few images", "natural", "honest pair"],
)
def test_other_histories_are_not_flagged(history, held_out):
    assert flags(history, held_out) == []


def test_natural_training_has_no_attack_to_overfit_to():
    history = ((40, 3, 30), (90, 0, 30))
    assert flags(history)[0].startswith("catastrophic overfitting")
    assert not any("catastrophic" in flag for flag in flags(history, adversarial=False))
    attack = PGD(steps=1, rel_step_size=1.0)
    adversarial = [SAT(name="a", attack=attack), MART(name="b", attack=attack, beta=0), TRADES(name="c", attack=attack)]
    assert all(objective.is_adversarial for objective in adversarial)
    assert not any(natural.is_adversarial for natural in (Natural(name="d"), TRADES(name="e", attack=attack, beta=0)))


def test_rows_of_a_version_that_did_not_record_one_step():
    history = [{key: value for key, value in row.items() if key != "val_fgsm_acc"} for row in rows(*COLLAPSE)]
    assert training_flags(history, 10, 1000, adversarial=True) == []


def test_both_flags():
    collapsed, overfitted = flags(((50, 40, 41), (10, 0, 60)))
    assert collapsed.startswith("collapsed: held-out clean accuracy 10.0%")
    assert overfitted.startswith("catastrophic overfitting: at epoch 2")
    # at chance, where one step and many agree
    assert [flag.split(":")[0] for flag in flags(((10, 0, 10), (10, 10, 10)), 60)] == ["collapsed"]
