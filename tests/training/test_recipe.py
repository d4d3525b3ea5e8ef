"""What a recipe hands to the optimizer and the attack, and the rate that each step of a run is taken at."""

import math
from fractions import Fraction
from functools import partial

import pytest
import torch
from torch import nn

from robust_arch.architectures import ArchSpec, build
from robust_arch.attacks import PGD, ThreatModel
from robust_arch.data.augment import CropFlip
from robust_arch.errors import InputError
from robust_arch.objectives.natural import Natural
from robust_arch.training.module import AdversarialTraining
from robust_arch.training.recipe import Recipe
from robust_arch.training.schedule import Cosine, OneCycle, Steps, Warmup

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


@pytest.fixture(scope="module")
def net():
    return build(ArchSpec("wide_resnet", (1, 2, 1), (4, 8, 12)), 10, (3, 8, 8), seed=0)


def decay_by_parameter(recipe, net):
    """Weight decay by the parameter's name; every parameter once."""
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    given = [
        (names[id(parameter)], group["weight_decay"])
        for group in recipe.optimizer(recipe.parameter_groups(net)).param_groups
        for parameter in group["params"]
    ]
    assert sorted(name for name, _ in given) == sorted(names.values())
    return dict(given)


def test_without_decay_all_exactly_batchnorm_and_biases_are_free_of_decay(net):
    free = {
        f"{name}.{own}"
        for name, module in net.named_modules()
        for own, _ in module.named_parameters(recurse=False)
        if isinstance(module, nn.BatchNorm2d) or own == "bias"
    }
    decay = decay_by_parameter(make(decay_all=False), net)
    assert {name for name, value in decay.items() if value == 0} == free
    assert {value for name, value in decay.items() if name not in free} == {DECAY}
    # by hand: 4 blocks of two BatchNorms and the last one, a weight and a bias each, and the bias of the linear layer
    assert len(free) == (4 * 2 + 1) * 2 + 1


def test_with_decay_all_every_parameter_decays(net):
    assert set(decay_by_parameter(make(decay_all=True), net).values()) == {DECAY}


def test_the_rate_of_both_groups_is_the_optimizers(net):
    recipe = make(decay_all=False)
    optimizer = recipe.optimizer(recipe.parameter_groups(net))
    assert [group["lr"] for group in optimizer.param_groups] == [0.2, 0.2]


THREAT = ThreatModel("linf", "8/255")


@pytest.mark.parametrize(
    ("warmup", "expected"),
    [
        (0, ["8/255", "8/255", "8/255"]),
        (1, ["4/255", "8/255", "8/255"]),
        (3, ["2/255", "4/255", "6/255", "8/255", "8/255"]),
        (4, ["8/1275", "16/1275", "24/1275", "32/1275", "8/255", "8/255"]),
    ],
)
def test_the_radius_rises_linearly_in_exact_fractions(warmup, expected):
    recipe = make(eps_warmup=warmup)
    table = [recipe.threat_at(THREAT, epoch) for epoch in range(len(expected))]
    assert [threat.eps_fraction for threat in table] == [Fraction(eps) for eps in expected]
    assert {threat.norm for threat in table} == {"linf"}


def test_the_norm_stays_while_the_radius_rises():
    threat = make(eps_warmup=1).threat_at(ThreatModel("l2", 0.5), 0)
    assert (threat.norm, threat.eps_fraction) == ("l2", Fraction(1, 4))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, r"recipe\.epochs = 0: an integer of at least 1"),
        ({"epochs": 1.5}, r"recipe\.epochs = 1\.5: "),
        ({"epochs": True}, r"recipe\.epochs = True: "),
        ({"epochs": None}, r"recipe\.epochs = None: "),
        ({"batch_size": 0}, r"recipe\.batch_size = 0: an integer of at least 1"),
        ({"batch_size": "128"}, r"recipe\.batch_size = '128': "),
        ({"early_stopping": 0}, r"recipe\.early_stopping = 0: an integer of at least 1"),
        ({"early_stopping": True}, r"recipe\.early_stopping = True: "),
        ({"eps_warmup": -1}, r"recipe\.eps_warmup = -1: an integer of at least 0"),
        ({"eps_warmup": 0.5}, r"recipe\.eps_warmup = 0\.5: "),
        ({"eps_warmup": None}, r"recipe\.eps_warmup = None: "),
        ({"gradient_clip": 0}, r"recipe\.gradient_clip = 0: .*greater than 0, or null"),
        ({"gradient_clip": -5.0}, r"recipe\.gradient_clip = -5\.0: "),
        ({"gradient_clip": math.nan}, r"recipe\.gradient_clip = nan: "),
        ({"gradient_clip": math.inf}, r"recipe\.gradient_clip = inf: "),
        ({"normalize": "cifar10"}, r"recipe\.normalize = 'cifar10': identity or dataset"),
        ({"normalize": None}, r"recipe\.normalize = None: "),
    ],
)
def test_bad_values_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        make(**changes)


def rates(schedule, *, epochs=3, steps=4, **changes):
    """The rate of every step of a run of 3 epochs of 4 steps, as the module's optimizer takes them."""
    module = AdversarialTraining(
        nn.Linear(2, 2),
        Natural(name="natural"),
        THREAT,
        make(schedule=schedule, **changes),
        PGD(steps=1, rel_step_size=1.0),
        epochs=epochs,
        steps_per_epoch=steps,
        max_value=255,
        seed=0,
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


def test_steps_by_steps():
    # 0.25 * 3 = 0.75 and 0.6 * 3 = 1.8: drops before epochs 1 and 2
    expected = [0.2] * 4 + [0.02] * 4 + [0.002] * 4
    assert rates(Steps(milestones=(0.25, 0.6))) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("decay_all", [True, False])
def test_warmup_and_cosine_by_steps(decay_all):
    # step s is at time s / 4; the ramp lasts 1.5 epochs, which is 6 steps
    expected = [0.2 * min(1, s / 6) * (1 + math.cos(math.pi * s / 12)) / 2 for s in range(12)]
    assert expected[6] == pytest.approx(0.1)
    assert rates(Warmup(warmup_epochs=1.5, then=Cosine()), decay_all=decay_all) == pytest.approx(expected, rel=1e-12)


def test_cosine_by_epochs_by_steps():
    # 1 + cos 0, cos 60 degrees, cos 120 degrees
    expected = [0.2] * 4 + [0.15] * 4 + [0.05] * 4
    assert rates(Cosine(by_epochs=True)) == pytest.approx(expected, rel=1e-12)


def test_one_cycle_by_steps():
    # the peak at 0.25 of 12 steps: up in thirds, then down in ninths
    up, down = [0, 1 / 3, 2 / 3], [1 - k / 9 for k in range(9)]
    expected = [0.2 * factor for factor in up + down]
    assert rates(OneCycle(peak=0.25)) == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_the_steps_of_an_epoch_need_not_divide_its_time_exactly():
    # 390 and 391 steps: the drop is at the first step of epoch 2, not one later or earlier
    for steps in (390, 391):
        taken = rates(Steps(milestones=(0.5,)), steps=steps)
        assert taken == pytest.approx([0.2] * 2 * steps + [0.02] * steps, rel=1e-12)
