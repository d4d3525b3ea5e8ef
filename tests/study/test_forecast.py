"""Passes through a network counted by hand, and rates that are known because the records were made from them."""

import pytest
import torch
from torch import nn

from robust_arch.attacks import PGD, Clean, ThreatModel, Uniform
from robust_arch.attacks.losses import KLToClean
from robust_arch.objectives.mart import MART
from robust_arch.objectives.natural import Natural
from robust_arch.objectives.sat import SAT
from robust_arch.objectives.trades import TRADES
from robust_arch.study.forecast import Load, fit_rate, selection_passes, training_passes

TASK = (ThreatModel("linf", 0.1), 10, (1, 4, 4))
STEPS = 10
ATTACK = PGD(steps=STEPS, rel_step_size=0.25, start=Uniform())
KL_ATTACK = PGD(steps=STEPS, rel_step_size=0.25, start=Uniform(), loss=KLToClean())

# (forward, back to inputs, back to weights): an attack's step is one forward pass and one back to the inputs; the outer
# step is, for each of its forward passes, one back to every layer's inputs and one to the weights
BY_HAND = {
    "natural": (Natural(name="natural"), (1, 1, 1)),
    "sat": (SAT(name="sat", attack=ATTACK), (STEPS + 1, STEPS + 1, 1)),
    # the anchor of the KL term is one more forward pass on clean images
    "trades": (TRADES(name="trades", attack=KL_ATTACK), (1 + STEPS + 2, STEPS + 2, 2)),
    "mart": (MART(name="mart", attack=ATTACK), (STEPS + 2, STEPS + 2, 2)),
    "trades without its second term": (TRADES(name="trades", attack=KL_ATTACK, beta=0.0), (1, 1, 1)),
    "three steps": (SAT(name="sat3", attack=PGD(steps=3, rel_step_size=0.5, start=Clean())), (4, 4, 1)),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_passes_of_a_training_step_are_those_counted_by_hand(name):
    objective, expected = BY_HAND[name]
    passes = training_passes(objective, *TASK)
    assert (passes.forward, passes.to_inputs, passes.to_weights) == expected
    assert passes.total == sum(expected)


def test_passes_of_a_validation():
    # clean; under the attack STEPS of two passes and one to score; under one step two and one
    assert selection_passes(ATTACK, *TASK).total == 1 + (2 * STEPS + 1) + (2 + 1)


@pytest.mark.parametrize("name", BY_HAND)
def test_passes_are_those_that_torch_makes_of_a_convolution(name):
    """The same objective on a network of two convolutions; its second one stands for all but the first layer."""
    counts = {"forward": 0, "inputs": 0, "weights": 0}
    counted = nn.Conv2d(3, 3, 1)
    net = nn.Sequential(nn.Conv2d(1, 3, 1), counted, nn.Flatten(), nn.Linear(48, 10))

    def forward(layer, inputs, output):
        counts["forward"] += 1
        if inputs[0].requires_grad:
            inputs[0].register_hook(lambda gradient: counts.__setitem__("inputs", counts["inputs"] + 1))
        if output.requires_grad and layer.weight.requires_grad:
            output.register_hook(lambda gradient: counts.__setitem__("weights", counts["weights"] + 1))

    counted.register_forward_hook(forward)
    objective, _ = BY_HAND[name]
    x, index = torch.rand(4, 1, 4, 4), torch.arange(4)
    objective(net.train(), x, index, TASK[0], 0, index).total.backward()
    passes = training_passes(objective, *TASK)
    assert (passes.forward, passes.to_inputs, passes.to_weights) == tuple(counts.values())


def test_counting_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    training_passes(BY_HAND["trades"][0], *TASK)
    assert torch.equal(before, torch.get_rng_state())


LOADS = [Load(1_000, 2e9), Load(1_000, 8e9), Load(5_000, 3e9), Load(2_000, 4e9)]


@pytest.mark.parametrize(("an_image", "a_mac"), [(2e-3, 3e-9), (0.0, 3e-9), (2e-3, 0.0)])
def test_a_rate_without_noise_is_found(an_image, a_mac):
    rate = fit_rate(LOADS, [an_image * load.images + a_mac * load.work for load in LOADS])
    assert (rate.an_image, rate.a_mac) == pytest.approx((an_image, a_mac), rel=1e-6, abs=1e-15)


def test_a_rate_is_never_negative_and_no_other_such_rate_is_nearer():
    # more images, less time: without the bound the least-squares line has a negative part
    seconds = [30.0, 90.0, 5.0, 40.0]
    rate = fit_rate(LOADS, seconds)
    assert rate.an_image >= 0
    assert rate.a_mac >= 0

    def error(an_image, a_mac):
        return sum((an_image * x.images + a_mac * x.work - s) ** 2 for x, s in zip(LOADS, seconds, strict=True))

    grid = [(i * 5e-4, j * 1e-10) for i in range(60) for j in range(200)]
    assert error(rate.an_image, rate.a_mac) <= min(error(*point) for point in grid)


def test_one_record_is_a_rate_by_work():
    rate = fit_rate([Load(1_000, 2e9)], [6.0])
    assert rate.seconds(Load(50, 4e9)) == pytest.approx(12.0)


def test_records_that_differ_in_nothing_are_a_rate_by_work():
    rate = fit_rate([Load(1_000, 2e9)] * 3, [5.0, 6.0, 7.0])
    assert rate.seconds(Load(1_000, 1e9)) == pytest.approx(3.0)
