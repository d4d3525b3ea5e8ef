import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import nn

from robust_arch.attacks import PGD, Attack, ThreatModel
from robust_arch.objectives.natural import Natural
from robust_arch.objectives.sat import SAT

THREAT = ThreatModel("linf", "0.2")
INNER = PGD(steps=10, rel_step_size=0.25)
INDEX = torch.arange(4)


@dataclass(frozen=True, kw_only=True)
class Shift(Attack):
    """Adds a constant, and notes what it is called with."""

    amount: float = 0.1
    calls: list = field(default_factory=list)

    def run(self, net, x, y, threat, seed, index):
        self.calls.append((seed, index.tolist(), net.training))
        net(x)
        return x + self.amount


def batch():
    """Four images inside the box under eps 0.2."""
    x = 0.3 + 0.4 * torch.rand(4, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    return x, torch.tensor([0, 1, 1, 0])


@pytest.fixture
def two_classes(linear):
    return linear(torch.tensor([[1.0, -2.0, 0.5, 3.0], [-1.0, 1.0, 2.0, -0.5]]), torch.tensor([0.2, -0.1]))


@pytest.fixture
def normalised():
    """A network that starts with a BatchNorm, whose statistics are then those of the images."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(4, 2)).train()


def cross_entropy_and_gradient(net, x, y):
    """Mean of -log p_y, and its derivative (p - onehot)^T x / B in the weights, in float64."""
    weight, bias = (p.detach().double().numpy() for p in net[1].parameters())
    flat = np.asarray(x, dtype=np.float64).reshape(len(x), -1)
    scores = np.exp(flat @ weight.T + bias)
    p = scores / scores.sum(axis=1, keepdims=True)
    value = -np.log(p[np.arange(len(y)), y]).mean()
    return value, (p - np.eye(2)[y]).T @ flat / len(y)


def worst_case(net, x, y):
    """x + 0.2 sign(w_other - w_y): what the inner maximisation finds on two linear classes."""
    weight = net[1].weight.detach().numpy()
    uphill = np.sign(weight[1 - y] - weight[y]).reshape(x.shape)
    return x.numpy() + np.float32(0.2) * uphill


def test_natural_is_the_mean_cross_entropy_by_hand(linear):
    # logits (log 3 x, 0) at x = 1: p = (3/4, 1/4); at x = 0: p = (1/2, 1/2)
    net = linear(torch.tensor([[math.log(3)], [0.0]]))
    x = torch.tensor([1.0, 0.0]).view(2, 1, 1, 1)
    loss = Natural(name="natural")(net, x, torch.tensor([0, 1]), THREAT, seed=0, index=torch.arange(2))
    assert loss.total.item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    np.testing.assert_allclose(loss.logits, [[math.log(3), 0], [0, 0]], rtol=1e-6)


def test_natural_gradient_in_closed_form(two_classes):
    x, y = batch()
    loss = Natural(name="natural")(two_classes, x, y, THREAT, seed=0, index=INDEX)
    loss.total.backward()
    value, gradient = cross_entropy_and_gradient(two_classes, x, y)
    assert loss.total.item() == pytest.approx(value, rel=1e-5)
    np.testing.assert_allclose(two_classes[1].weight.grad, gradient, rtol=1e-4, atol=1e-6)


def test_sat_value_and_gradient_at_the_worst_case_of_a_linear_network(two_classes):
    x, y = batch()
    loss = SAT(name="sat", attack=INNER)(two_classes, x, y, THREAT, seed=0, index=INDEX)
    loss.total.backward()
    value, gradient = cross_entropy_and_gradient(two_classes, worst_case(two_classes, x, y), y)
    assert loss.total.item() == pytest.approx(value, rel=1e-5)
    # the attack's own gradients leave nothing behind in the weights
    np.testing.assert_allclose(two_classes[1].weight.grad, gradient, rtol=1e-4, atol=1e-6)


def test_sat_hands_seed_and_index_to_the_attack_in_evaluation_mode(normalised):
    attack = Shift()
    SAT(name="sat", attack=attack)(normalised, *batch(), THREAT, seed=17, index=torch.tensor([5, 9, 2, 7]))
    assert attack.calls == [(17, [5, 9, 2, 7], False)]
    assert all(module.training for module in normalised.modules())


@pytest.mark.parametrize(
    ("objective", "shift"),
    [(Natural(name="natural"), 0.0), (SAT(name="sat", attack=Shift(amount=0.1)), 0.1)],
    ids=["natural", "sat"],
)
def test_batch_norm_sees_one_training_pass_and_none_of_the_attack(objective, shift, normalised):
    x, y = batch()
    objective(normalised, x, y, THREAT, seed=0, index=INDEX)
    seen = x.double().numpy() + shift
    norm = normalised[0]
    assert norm.num_batches_tracked == 1
    # one step of momentum 0.1 from mean 0 and variance 1
    assert norm.running_mean.item() == pytest.approx(0.1 * seen.mean(), rel=1e-5)
    assert norm.running_var.item() == pytest.approx(0.9 + 0.1 * seen.var(ddof=1), rel=1e-5)


def test_batch_norm_sees_one_training_pass_where_the_attack_takes_many(normalised):
    SAT(name="sat", attack=INNER)(normalised, *batch(), THREAT, seed=0, index=INDEX)
    assert normalised[0].num_batches_tracked == 1


@pytest.mark.parametrize("objective", [Natural(name="natural"), SAT(name="sat", attack=INNER)], ids=["natural", "sat"])
def test_the_loss_is_float32_where_the_network_is_not_and_logits_are_detached(objective, normalised):
    x, y = batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert normalised.eval()(x).dtype == torch.bfloat16
        loss = objective(normalised.train(), x, y, THREAT, seed=0, index=INDEX)
    assert loss.total.dtype == torch.float32
    assert loss.total.requires_grad
    assert not loss.logits.requires_grad
    assert loss.logits.shape == (4, 2)
