"""What a recipe hands to the optimizer and the attack, and the learning rate of each step of a run."""

import math
from dataclasses import fields
from fractions import Fraction
from functools import partial

import pytest
import torch
from torch import nn

from robust_arch.architectures import ArchSpec, build
from robust_arch.attacks import PGD, ThreatModel
from robust_arch.common.paths import conf_dir
from robust_arch.data.augment import CropFlip
from robust_arch.errors import InputError
from robust_arch.objectives.natural import Natural
from robust_arch.training.module import AdversarialTraining
from robust_arch.training.recipe import Recipe
from robust_arch.training.schedule import Cosine, OneCycle, PiecewiseLinear, Steps, Warmup

DECAY = 5e-4


def make(**changes):
    given = {
        "name": "x",
        "epochs": 3,
        "batch_size": 8,
        "optimizer": partial(torch.optim.SGD, lr=0.2, momentum=0.9, weight_decay=DECAY),
        "schedule": Cosine(),
        "augment": CropFlip(padding=0, flip=False),
    }
    return Recipe(**given | changes)


def test_without_decay_all_exactly_batchnorm_and_biases_are_free_of_decay():
    net = build(ArchSpec("wide_resnet", (1, 2, 1), (4, 8, 12)), 10, (3, 8, 8), seed=0)
    free = {
        f"{name}.{own}"
        for name, module in net.named_modules()
        for own, _ in module.named_parameters(recurse=False)
        if isinstance(module, nn.BatchNorm2d) or own == "bias"
    }
    # by hand: 4 blocks of two BatchNorms and the last one, a weight and a bias each, and the bias of the linear layer
    assert len(free) == (4 * 2 + 1) * 2 + 1
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    for decay_all in (False, True):
        recipe = make(decay_all=decay_all)
        groups = recipe.optimizer(recipe.parameter_groups(net)).param_groups
        assert {group["lr"] for group in groups} == {0.2}
        decay = [(names[id(each)], group["weight_decay"]) for group in groups for each in group["params"]]
        without = set() if decay_all else free
        assert sorted(decay) == sorted((name, 0 if name in without else DECAY) for name in names.values())


@pytest.mark.parametrize(
    ("warmup", "expected"),
    [
        (0, ["8/255", "8/255", "8/255"]),
        (1, ["4/255", "8/255", "8/255"]),
        (3, ["2/255", "4/255", "6/255", "8/255", "8/255"]),
        (4, ["8/1275", "16/1275", "24/1275", "32/1275", "8/255", "8/255"]),
    ],
)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_radius_rises_linearly_in_exact_fractions(norm, warmup, expected):
    threats = [make(eps_warmup=warmup).threat_at(ThreatModel(norm, "8/255"), epoch) for epoch in range(len(expected))]
    assert [(threat.norm, threat.eps_fraction) for threat in threats] == [(norm, Fraction(eps)) for eps in expected]


@pytest.mark.parametrize(
    ("attack", "eps", "expected"),
    [
        (2, 0, ["0", "0", "8/255", "8/255"]),
        (1, 1, ["0", "4/255", "8/255", "8/255"]),
        (2, 3, ["0", "0", "2/255", "4/255", "6/255", "8/255", "8/255"]),
    ],
)
def test_epochs_without_attack_come_before_the_radius_rises(attack, eps, expected):
    recipe = make(attack_warmup=attack, eps_warmup=eps)
    threats = [recipe.threat_at(ThreatModel("linf", "8/255"), epoch) for epoch in range(len(expected))]
    assert [threat.eps_fraction for threat in threats] == [Fraction(each) for each in expected]


def test_training_must_outlast_the_attacks_warm_up():
    natural = Natural(name="natural")
    make(attack_warmup=2).require_fits(natural, epochs=3)
    for epochs in (1, 2):
        with pytest.raises(InputError, match=rf"^recipe\.attack_warmup = 2: .*trainer\.max_epochs = {epochs}"):
            make(attack_warmup=2).require_fits(natural, epochs=epochs)
    make(attack_warmup=2, early_stopping=3)
    with pytest.raises(InputError, match=r"^recipe\.early_stopping = 2: expected more than recipe\.attack_warmup = 2"):
        make(attack_warmup=2, early_stopping=2)


@pytest.mark.parametrize(
    ("key", "values", "allowed"),
    [
        ("epochs", [0, 1.5, True, None], "an integer of at least 1"),
        ("batch_size", [0, "128"], "an integer of at least 1"),
        ("early_stopping", [0, True], "an integer of at least 1"),
        ("eps_warmup", [-1, 0.5, None], "an integer of at least 0"),
        ("attack_warmup", [-1, True, None], "an integer of at least 0"),
        ("label_smoothing", [-0.1, 1, 1.5, True, math.nan, "0.1"], "a number in [0, 1)"),
        ("mixup", [0.2, None], "a group of keys with a _target_: MixUp"),
        ("cutmix", [1.0], "a group of keys with a _target_: CutMix"),
        ("gradient_clip", [0, -5.0, math.nan, math.inf], "a finite number greater than 0, or null"),
        ("normalize", ["cifar10", None], "identity or dataset"),
    ],
)
def test_bad_values_are_named(key, values, allowed):
    for value in values:
        with pytest.raises(InputError) as caught:
            make(**{key: value})
        assert str(caught.value).startswith(f"recipe.{key} = {value!r}: expected {allowed}")


def rates(schedule, *, epochs=3, steps=4, **changes):
    """The rate of every step of a run of 3 epochs of 4 steps, as the module's optimizer takes them."""
    module = AdversarialTraining(
        nn.Linear(2, 2),
        Natural(name="natural"),
        ThreatModel("linf", "8/255"),
        make(schedule=schedule, **changes),
        PGD(steps=1, rel_step_size=1.0),
        epochs=epochs,
        steps_per_epoch=steps,
        max_value=255,
        seed=0,
        channels_last=False,
    )
    configured = module.configure_optimizers()
    optimizer, scheduler = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    assert configured["lr_scheduler"]["interval"] == "step"
    taken = []
    for _ in range(epochs * steps):
        (rate,) = {group["lr"] for group in optimizer.param_groups}
        taken.append(rate)
        optimizer.step()
        scheduler.step()
    return taken


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        # 0.25 * 3 = 0.75 and 0.6 * 3 = 1.8: drops before epochs 1 and 2
        (Steps(milestones=(0.25, 0.6)), [1] * 4 + [0.1] * 4 + [0.01] * 4),
        # step s is at time s / 4; the ramp lasts 1.5 epochs, which is 6 steps
        (
            Warmup(warmup_epochs=1.5, then=Cosine()),
            [min(1, s / 6) * (1 + math.cos(math.pi * s / 12)) / 2 for s in range(12)],
        ),
        # 1 + cos 0, cos 60 degrees, cos 120 degrees
        (Cosine(by_epochs=True), [1] * 4 + [0.75] * 4 + [0.25] * 4),
        # the peak at 0.25 of 12 steps: up in thirds, then down in ninths
        (OneCycle(peak=0.25), [0, 1 / 3, 2 / 3, *(1 - k / 9 for k in range(9))]),
        # a ramp from a tenth in the first epoch, then constant
        (Warmup(warmup_epochs=1, then=Steps(milestones=()), start=0.1), [0.1, 0.325, 0.55, 0.775] + [1] * 8),
        # flat for an epoch, down to 0.1 in the second, constant from there
        (PiecewiseLinear(points=[[1 / 3, 1], [2 / 3, 0.1]]), [1] * 4 + [1, 0.775, 0.55, 0.325] + [0.1] * 4),
    ],
)
def test_rates_of_a_run_by_steps(schedule, factors):
    for decay_all in (True, False):
        assert rates(schedule, decay_all=decay_all) == pytest.approx([0.2 * f for f in factors], rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("steps", [390, 391])
def test_the_steps_of_an_epoch_need_not_divide_its_time_exactly(steps):
    # the drop is at the first step of epoch 2, not one later or earlier
    taken = rates(Steps(milestones=(0.5,)), steps=steps)
    assert taken == pytest.approx([0.2] * 2 * steps + [0.02] * steps, rel=1e-12)


@pytest.mark.parametrize("name", [path.stem for path in sorted((conf_dir() / "recipe").glob("*.yaml"))])
def test_every_key_of_a_recipe_can_be_set_in_each(name, composed):
    recipe = composed(f"recipe={name}").recipe
    assert {field.name for field in fields(Recipe)} - set(recipe) <= {"averaging"}  # set by its own group
