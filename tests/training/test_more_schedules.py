"""Learning-rate rules against formulas and hand-computed values; the recipes of conf/recipe as published."""

import math
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from robust_arch.common.paths import conf_dir
from robust_arch.configuration.nodes import instantiate
from robust_arch.data.batches import GlobalBatches
from robust_arch.errors import InputError
from robust_arch.training.recipe import Recipe
from robust_arch.training.schedule import Cosine, OneCycle, Steps, Warmup


@pytest.fixture
def recipe():
    """A function from the name of a YAML file and overrides to the recipe that it makes."""

    def make(name, *overrides):
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return instantiate(compose(f"recipe/{name}", overrides=list(overrides)).recipe, "recipe")

    return make


@pytest.mark.parametrize("epochs", [1, 2, 7, 100, 400])
def test_cosine_by_epochs_as_a_table(epochs):
    # lr / 2 (1 + cos(pi (e - 1) / E)), e from 1 to E; with 390 steps an epoch, its first and last step alike
    expected = [(1 + math.cos(math.pi * (e - 1) / epochs)) / 2 for e in range(1, epochs + 1)]
    rule = Cosine(by_epochs=True)
    assert [rule(e, epochs) for e in range(epochs)] == pytest.approx(expected, abs=1e-15)
    assert [rule(e + 389 / 390, epochs) for e in range(epochs)] == pytest.approx(expected, abs=1e-15)
    assert expected[0] == 1
    assert epochs == 1 or 0 < expected[-1] < 1  # the last epoch still learns


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [
        (0, 1),
        (2, (2 + math.sqrt(2)) / 4),
        (8 / 3, 3 / 4),
        (4, 1 / 2),
        (16 / 3, 1 / 4),
        (6, (2 - math.sqrt(2)) / 4),
        (8, 0),
    ],
)
def test_continuous_cosine_at_angles_of_known_cosine(epoch, expected):
    assert Cosine()(epoch, 8) == pytest.approx(expected, abs=1e-15)


def test_continuous_cosine_falls_within_an_epoch():
    rates = [Cosine()(step / 10, 3) for step in range(31)]
    assert all(later < earlier for earlier, later in pairwise(rates))


@pytest.mark.parametrize(
    ("epoch", "expected"),
    # 10 epochs, peak at 0.4: up by 1/4 an epoch until 4, down by 1/6 an epoch until 10
    [(0, 0), (0.5, 1 / 8), (1, 1 / 4), (3, 3 / 4), (4, 1), (5.5, 3 / 4), (7, 1 / 2), (9.25, 1 / 8), (10, 0)],
)
def test_one_cycle_by_hand(epoch, expected):
    assert OneCycle(peak=0.4)(epoch, 10) == pytest.approx(expected, abs=1e-15)


def test_one_cycle_peaks_at_three_tenths_unless_said():
    assert OneCycle()(6, 20) == pytest.approx(1)
    assert max(OneCycle()(step / 100, 20) for step in range(2001)) == pytest.approx(1)


@pytest.mark.parametrize(
    ("epoch", "expected"),
    # 8 epochs: the ramp reaches 1 at 2; the cosine at 4 is 1/2, the steps at 6 are 1/10
    [(0, 0), (0.5, 1 / 4), (1, 1 / 2), (2, 1), (5, 1), (6, 1 / 10), (7.5, 1 / 10)],
)
def test_warmup_is_a_product_with_steps(epoch, expected):
    assert Warmup(warmup_epochs=2, then=Steps(milestones=(0.75,)))(epoch, 8) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("epoch", "expected"), [(0, 0), (4, 1 / 2 * 4 / 5), (2, (2 + math.sqrt(2)) / 4 * 2 / 5), (8, 0)]
)
def test_warmup_is_a_product_with_a_rule_that_moves_too(epoch, expected):
    assert Warmup(warmup_epochs=5, then=Cosine())(epoch, 8) == pytest.approx(expected, abs=1e-15)


def test_warmup_may_end_within_an_epoch():
    rule = Warmup(warmup_epochs=0.5, then=Steps(milestones=()))
    assert [rule(t, 3) for t in (0, 0.25, 0.5, 1, 2.9)] == pytest.approx([0, 0.5, 1, 1, 1])


@pytest.mark.parametrize("percent", range(1, 100))
def test_a_milestone_in_hundredths_falls_on_its_very_epoch(percent):
    # 0.55 * 100 is 55.00000000000001 in floating point: the drop must not wait for epoch 56
    rule = Steps(milestones=(percent / 100,), factor=0.5)
    for epochs in (50, 100, 200):
        expected = [0.5 if Fraction(e, epochs) >= Fraction(percent, 100) else 1.0 for e in range(epochs)]
        assert [rule(e, epochs) for e in range(epochs)] == expected, epochs


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OneCycle(peak=0), r"recipe\.schedule\.peak = 0: "),
        (lambda: OneCycle(peak=1), r"recipe\.schedule\.peak = 1: "),
        (lambda: OneCycle(peak=30), r"recipe\.schedule\.peak = 30: a fraction"),
        (lambda: OneCycle(peak=math.nan), r"recipe\.schedule\.peak = nan: "),
        (lambda: Warmup(warmup_epochs=0, then=Cosine()), r"recipe\.schedule\.warmup_epochs = 0: greater than 0"),
        (lambda: Warmup(warmup_epochs=-1, then=Cosine()), r"recipe\.schedule\.warmup_epochs = -1: "),
        (lambda: Steps(milestones=(0.5,), factor=0), r"recipe\.schedule\.factor = 0: greater than 0"),
        (lambda: Steps(milestones=(0.5,), factor=-0.1), r"recipe\.schedule\.factor = -0\.1: "),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize("name", sorted(path.stem for path in (conf_dir() / "recipe").glob("*.yaml")))
def test_every_recipe_file_is_a_recipe_of_its_name(name, recipe):
    made = recipe(name)
    assert isinstance(made, Recipe)
    assert made.name == name
    optimizer = made.optimizer(made.parameter_groups(torch.nn.Linear(2, 2)))
    assert isinstance(optimizer, torch.optim.Optimizer)
    rates = [made.schedule(epoch, made.epochs) for epoch in range(made.epochs)]
    assert all(0 <= rate <= 1 for rate in rates)
    assert max(rates) > 0.9


def sgd(made):
    """What the optimizer does to a parameter."""
    optimizer = made.optimizer([torch.nn.Parameter(torch.zeros(1))])
    assert type(optimizer) is torch.optim.SGD
    (group,) = optimizer.param_groups
    return {key: group[key] for key in ("lr", "momentum", "weight_decay", "nesterov", "dampening")}


def published(made):
    return (
        made.epochs, made.batch_size, made.drop_last, made.gradient_clip, made.augment.padding, made.augment.flip,
        made.normalize, made.decay_all, made.early_stopping, made.eps_warmup,
    )  # fmt: skip


def test_huang2021_is_the_published_recipe(recipe):
    made = recipe("huang2021")
    assert published(made) == (100, 128, True, 5.0, 4, True, "identity", True, None, 0)
    assert sgd(made) == {"lr": 0.1, "momentum": 0.9, "weight_decay": 2e-4, "nesterov": False, "dampening": 0}
    table = [0.1 * made.schedule(epoch, 100) for epoch in range(100)]
    assert table == pytest.approx([0.1] * 75 + [0.01] * 15 + [0.001] * 10, rel=1e-12)
    # 50,000 images without the incomplete last batch: 390 steps
    assert len(GlobalBatches(50_000, made.batch_size, shuffle=True, drop_last=made.drop_last)) == 390


def test_huang2021_500k_is_the_published_recipe(recipe):
    made = recipe("huang2021_500k")
    # 500k images in batches of 256
    assert (made.epochs, made.batch_size, made.gradient_clip) == (400, 256, None)
    assert (made.augment.padding, made.augment.flip, made.normalize, made.decay_all) == (4, True, "identity", True)
    assert sgd(made) == {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": False, "dampening": 0}
    table = [0.1 * made.schedule(epoch, 400) for epoch in range(400)]
    assert table == pytest.approx([0.05 * (1 + math.cos(math.pi * (e - 1) / 400)) for e in range(400)], abs=1e-15)
    # the rate peaks at e = 1, and the last epoch is one step of the rule earlier than at t = E - 1
    assert table[1] == 0.1
    assert table[0] == table[2] < 0.1
    assert (table[101], table[201]) == pytest.approx((0.05 * (1 + math.sqrt(0.5)), 0.05))
    assert table[399] == pytest.approx(0.05 * (1 + math.cos(math.pi * 398 / 400)), abs=1e-15)
    assert table[399] == pytest.approx(4 * 0.05 * (1 + math.cos(math.pi * 399 / 400)), rel=1e-3)


def test_the_recipe_without_flip_differs_in_that_alone(recipe):
    first, second = recipe("huang2021"), recipe("huang2021_no_flip")
    assert (first.augment.flip, second.augment.flip) == (True, False)
    assert published(second) == (*published(first)[:5], False, *published(first)[6:])
    assert sgd(first) == sgd(second)
    assert first.schedule == second.schedule


def test_the_recipe_of_the_digits_neither_pads_nor_flips(recipe):
    made = recipe("digits")
    assert (made.augment.padding, made.augment.flip) == (0, False)
    assert sgd(made) == sgd(recipe("huang2021"))
    assert made.schedule == recipe("huang2021").schedule


def test_the_short_recipe(recipe):
    made = recipe("short")
    assert (made.epochs, made.batch_size, made.gradient_clip, made.decay_all) == (10, 128, 5.0, False)
    assert sgd(made) == {"lr": 0.2, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": False, "dampening": 0}
    # up to 0.2 at the start of epoch 3 of 10, and down again
    assert [0.2 * made.schedule(e, 10) for e in (0, 1.5, 3, 6.5)] == pytest.approx([0, 0.1, 0.2, 0.1])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("recipe.schedule.milestones=[75,90]", r"recipe\.schedule\.milestones = \(75, 90\)"),
        ("recipe.epochs=0", r"recipe\.epochs = 0"),
        ("recipe.augment.padding=-1", r"recipe\.augment\.padding = -1"),
        ("+recipe.schedule.milestone=3", r"recipe\.schedule\.milestone: unknown key; did you mean milestones"),
        ("+recipe.clip=3", r"recipe\.clip: unknown key; Keys are .*gradient_clip"),
    ],
)
def test_a_bad_value_in_a_recipe_file_is_named(override, message, recipe):
    with pytest.raises(InputError, match=message):
        recipe("huang2021", override)
