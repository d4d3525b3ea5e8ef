"""Learning-rate schedules against formulas and hand-computed values; the recipes of conf/recipe as published."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from robust_arch.common.paths import conf_dir
from robust_arch.configuration.nodes import instantiate
from robust_arch.data.batches import GlobalBatches
from robust_arch.errors import InputError
from robust_arch.training.recipe import Recipe
from robust_arch.training.schedule import Cosine, OneCycle, PiecewiseLinear, Steps, Warmup

PUBLISHED = Steps(milestones=(0.75, 0.9), factor=0.1)  # Huang et al. 2021
LATE = Steps(milestones=(0.75,))
SGD = {"momentum": 0.9, "nesterov": False, "dampening": 0}


def table(schedule, epochs, rate=0.1):
    """Learning rate by epoch."""
    return [rate * schedule(epoch, epochs) for epoch in range(epochs)]


def test_every_rate_of_the_published_rule_is_reached_at_its_epoch():
    for epochs in range(10, 400):
        # in whole numbers: e >= 3/4 E and e >= 9/10 E
        passed = [(4 * e >= 3 * epochs) + (10 * e >= 9 * epochs) for e in range(epochs)]
        assert set(passed) == {0, 1, 2}
        assert table(PUBLISHED, epochs, rate=1) == [0.1**n for n in passed], epochs
    # 7.5 and 9: the milestones fall before epochs 8 and 9
    assert table(PUBLISHED, 10) == pytest.approx([0.1] * 8 + [0.01] + [0.001], rel=1e-12)


@pytest.mark.parametrize("epochs", [50, 100, 200])
def test_a_milestone_in_hundredths_falls_on_its_very_epoch(epochs):
    # 0.55 * 100 is 55.00000000000001 in floating point: the drop must not wait for epoch 56
    for percent in range(1, 100):
        rule = Steps(milestones=[percent / 100], factor=0.5)
        expected = [0.5 if Fraction(e, epochs) >= Fraction(percent, 100) else 1.0 for e in range(epochs)]
        assert [rule(e, epochs) for e in range(epochs)] == expected, percent


@pytest.mark.parametrize("epochs", [1, 2, 7, 100, 400])
def test_cosine_by_epochs(epochs):
    # lr / 2 (1 + cos(pi (e - 1) / E)), e from 1 to E
    expected, rule = (
        [(1 + math.cos(math.pi * (e - 1) / epochs)) / 2 for e in range(1, epochs + 1)],
        Cosine(by_epochs=True),
    )
    # of 390 steps in an epoch the first and the last alike
    assert [rule(e, epochs) for e in range(epochs)] == pytest.approx(expected, abs=1e-15)
    assert [rule(e + 389 / 390, epochs) for e in range(epochs)] == pytest.approx(expected, abs=1e-15)
    assert epochs == 1 or 0 < expected[-1] < 1  # the last epoch still learns


EIGHTHS = {0: 1, 2: (2 + math.sqrt(2)) / 4, 8 / 3: 3 / 4, 4: 1 / 2, 16 / 3: 1 / 4, 6: (2 - math.sqrt(2)) / 4, 8: 0}


@pytest.mark.parametrize(
    ("rule", "epochs", "expected"),
    [
        # constant within an epoch, also at its last of 390 steps
        (PUBLISHED, 100, {74: 1, 74.999: 1, 75 - 1 / 390: 1, 75: 0.1, 75.5: 0.1, 90 - 1 / 390: 0.1, 90: 0.01}),
        (Steps(milestones=()), 20, {0: 1, 10: 1, 19: 1}),
        # angles whose cosine is known
        (Cosine(), 8, EIGHTHS),
        # 10 epochs, peak at 0.4: up by 1/4 per epoch until 4, down by 1/6 per epoch until 10
        (
            OneCycle(peak=0.4),
            10,
            {0: 0, 0.5: 1 / 8, 1: 1 / 4, 3: 3 / 4, 4: 1, 5.5: 3 / 4, 7: 1 / 2, 9.25: 1 / 8, 10: 0},
        ),
        (OneCycle(), 20, {3: 1 / 2, 6: 1, 13: 1 / 2}),
        # 8 epochs: the ramp reaches 1 at 2, and the steps at 6 are 1/10
        (Warmup(warmup_epochs=2, then=LATE), 8, {0: 0, 0.5: 1 / 4, 1: 1 / 2, 2: 1, 5: 1, 6: 0.1, 7.5: 0.1}),
        (Warmup(warmup_epochs=5, then=Cosine()), 8, {t: EIGHTHS[t] * min(1, t / 5) for t in EIGHTHS}),
        (Warmup(warmup_epochs=0.5, then=Steps(milestones=())), 3, {0: 0, 0.25: 0.5, 0.5: 1, 1: 1, 2.9: 1}),
    ],
)
def test_factors_by_hand(rule, epochs, expected):
    assert [rule(time, epochs) for time in expected] == pytest.approx(list(expected.values()), abs=1e-15)


@pytest.mark.parametrize(("epochs", "rate"), [(15, 0.2), (30, 0.21), (200, 0.1)])
def test_the_piecewise_linear_schedules_of_published_code(epochs, rate):
    # Wong et al. 2020 (fast_adversarial, cyclic) and Rice et al. 2020 (robust_overfitting, linear), t in epochs
    cyclic = PiecewiseLinear(points=[[0, 0], [0.4, 1], [1, 0]])
    linear = PiecewiseLinear(points=[[0, 1], [1 / 3, 1], [2 / 3, 0.1], [1, 0.01]])
    for time in np.linspace(0, epochs, 7 * epochs + 1):
        published = np.interp([time], [0, epochs * 2 / 5, epochs], [0, rate, 0])[0]
        assert rate * cyclic(time, epochs) == pytest.approx(published, abs=1e-12)
        assert OneCycle(peak=0.4)(time, epochs) == pytest.approx(cyclic(time, epochs), abs=1e-12)
        thirds = [0, epochs / 3, epochs * 2 / 3, epochs]
        published = np.interp([time], thirds, [rate, rate, rate / 10, rate / 100])[0]
        assert rate * linear(time, epochs) == pytest.approx(published, abs=1e-12)


@pytest.mark.parametrize(("steps", "peak"), [(50, 0.3), (117, 0.25)])
def test_one_cycle_is_torchs_linear_one(steps, peak):
    # torch's peak is at step peak * steps - 1 and its end at steps - 1; ours counts time from 0 to 1
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1.0, total_steps=steps, pct_start=peak, anneal_strategy="linear", cycle_momentum=False
    )
    top, last = peak * steps - 1, steps - 1
    ours = PiecewiseLinear(points=[[0, 1 / 25], [top / last, 1], [1, 1 / 25e4]])
    for step in range(steps):
        assert ours(step, last) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        if step < last:
            theirs.step()


@pytest.mark.parametrize("epochs", [10, 100])
def test_linear_warm_up_then_steps_is_torchs_sequence(epochs):
    # by epochs: LinearLR from a tenth over 5 epochs, and MultiStepLR at 0.5 and 0.75 of them
    milestones = [epochs * 5 // 10, epochs * 75 // 100 + (epochs * 75 % 100 > 0)]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    ramp = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=5)
    drops = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones)
    ours = Warmup(warmup_epochs=5, then=Steps(milestones=(0.5, 0.75)), start=0.1)
    for epoch in range(epochs):
        assert ours(epoch, epochs) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9), epoch
        optimizer.step()
        ramp.step()
        drops.step()


@pytest.mark.parametrize(
    ("make", "key", "value"),
    [
        *((lambda value: OneCycle(peak=value), "peak", peak) for peak in (0, 1, 30, math.nan)),
        *((lambda value: Warmup(warmup_epochs=1, then=Cosine(), start=value), "start", at) for at in (-0.1, 1.5)),
        *(
            (lambda value: PiecewiseLinear(points=value), "points", bad)
            for bad in ([], [1], [[0]], [[0, 1], [0, 0]], [[0.5, 1], [0.2, 0]], [[0, 1], [2, 0]], [[0, -1]], [[0, "1"]])
        ),
        *((lambda value: Warmup(warmup_epochs=value, then=Cosine()), "warmup_epochs", epochs) for epochs in (0, -1)),
        *((lambda value: Steps(milestones=(0.5,), factor=value), "factor", factor) for factor in (0, -0.1)),
        *((lambda value: Steps(milestones=value), "milestones", (0.5, each)) for each in (0, -0.5, 1.5, 75)),
    ],
)
def test_bad_input_is_named(make, key, value):
    with pytest.raises(InputError) as caught:
        make(value)
    assert str(caught.value).startswith(f"recipe.schedule.{key} = {value!r}: expected ")


@pytest.fixture
def recipe():
    """A function from the name of a YAML file and overrides to the recipe that it makes."""

    def make(name, *overrides):
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return instantiate(compose(f"recipe/{name}", overrides=list(overrides)).recipe, "recipe")

    return make


@pytest.mark.parametrize("name", sorted(path.stem for path in (conf_dir() / "recipe").glob("*.yaml")))
def test_every_recipe_file_is_a_recipe_of_its_name(name, recipe):
    made = recipe(name)
    assert isinstance(made, Recipe)
    assert made.name == name
    assert isinstance(made.optimizer(made.parameter_groups(torch.nn.Linear(2, 2))), torch.optim.Optimizer)
    rates = table(made.schedule, made.epochs, rate=1)
    assert min(rates) >= 0
    assert 0.9 < max(rates) <= 1


def published(made):
    """Everything that a recipe decides but the schedule."""
    optimizer = made.optimizer([torch.nn.Parameter(torch.zeros(1))])
    assert type(optimizer) is torch.optim.SGD
    (group,) = optimizer.param_groups
    assert {key: group[key] for key in SGD} == SGD
    return (
        made.epochs, made.batch_size, made.drop_last, made.gradient_clip, made.augment.padding, made.augment.flip,
        made.normalize, made.decay_all, made.early_stopping, made.eps_warmup, group["lr"], group["weight_decay"],
    )  # fmt: skip


def test_huang2021_is_the_published_recipe(recipe):
    made = recipe("huang2021")
    assert published(made) == (100, 128, True, 5.0, 4, True, "identity", True, None, 0, 0.1, 2e-4)
    assert table(made.schedule, 100) == pytest.approx([0.1] * 75 + [0.01] * 15 + [0.001] * 10, rel=1e-12)
    # 50,000 images without the incomplete last batch: 390 steps
    assert len(GlobalBatches(50_000, made.batch_size, shuffle=True, drop_last=made.drop_last)) == 390
    # two more recipes change the augmentation alone
    for name, augmentation in (("huang2021_no_flip", (4, False)), ("digits", (0, False))):
        other = recipe(name)
        assert (other.augment.padding, other.augment.flip) == augmentation
        assert published(other)[-2:] == published(made)[-2:]
        assert other.schedule == made.schedule
    without_flip = published(recipe("huang2021_no_flip"))
    assert without_flip == (*published(made)[:5], False, *published(made)[6:])


def test_huang2021_500k_is_the_published_recipe(recipe):
    made = recipe("huang2021_500k")
    # 500k images in batches of 256
    assert published(made) == (400, 256, False, None, 4, True, "identity", True, None, 0, 0.1, 5e-4)
    rates = table(made.schedule, 400)
    assert rates == pytest.approx([0.05 * (1 + math.cos(math.pi * (e - 1) / 400)) for e in range(400)], abs=1e-15)
    # the rate peaks at e = 1, and the last epoch is one step of the rule earlier than at t = E - 1
    assert rates[1] == 0.1
    assert rates[0] == rates[2] < 0.1
    assert (rates[101], rates[201]) == pytest.approx((0.05 * (1 + math.sqrt(0.5)), 0.05))
    assert rates[399] == pytest.approx(0.05 * (1 + math.cos(math.pi * 399 / 400)) * 4, rel=1e-3)


def test_the_short_recipe(recipe):
    made = recipe("short")
    assert (made.epochs, made.batch_size, made.gradient_clip, made.decay_all) == (10, 128, 5.0, False)
    assert published(made)[-2:] == (0.2, 5e-4)
    # up to 0.2 at the start of epoch 3 of 10, and down again
    assert [0.2 * made.schedule(e, 10) for e in (0, 1.5, 3, 6.5)] == pytest.approx([0, 0.1, 0.2, 0.1])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("recipe.schedule.milestones=[75,90]", r"recipe\.schedule\.milestones = \(75, 90\)"),
        ("recipe.epochs=0", r"recipe\.epochs = 0"),
        ("recipe.augment.padding=-1", r"recipe\.augment\.padding = -1"),
        ("recipe.drop_last=maybe", r"recipe\.drop_last = 'maybe': .*true or false"),
        ("+recipe.schedule.milestone=3", r"recipe\.schedule\.milestone: unknown key; did you mean milestones"),
        ("+recipe.clip=3", r"recipe\.clip: unknown key; Keys are .*gradient_clip"),
    ],
)
def test_a_bad_value_in_a_recipe_file_is_named(override, message, recipe):
    with pytest.raises(InputError, match=message):
        recipe("huang2021", override)
