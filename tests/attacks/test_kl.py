import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import nn

from robust_arch.attacks import PGD, Clean, Gaussian, KLToClean, ThreatModel
from robust_arch.attacks.losses import kl_divergence


def logits(seed, batch=6, scale=3.0):
    return scale * torch.randn(batch, 4, generator=torch.Generator().manual_seed(seed))


def entropies(p, q):
    """KL(p || q) of two sets of logits by scipy, in float64."""
    p, q = (special.softmax(z.double().numpy(), axis=1) for z in (p, q))
    return stats.entropy(p, q, axis=1)


def test_divergence_by_hand_is_not_symmetric():
    # p = (1/4, 3/4), q = (1/2, 1/2)
    p, q = torch.tensor([[0.0, math.log(3)]]), torch.zeros(1, 2)
    assert kl_divergence(p, q).item() == pytest.approx(math.log(0.5) / 4 + 3 * math.log(1.5) / 4, rel=1e-6)
    assert kl_divergence(q, p).item() == pytest.approx(math.log(2) / 2 + math.log(2 / 3) / 2, rel=1e-6)


@pytest.mark.parametrize("scale", [0.1, 3.0, 20.0])
def test_divergence_agrees_with_scipy_for_each_example(scale):
    p, q = logits(0, scale=scale), logits(1, scale=scale)
    np.testing.assert_allclose(kl_divergence(p, q), entropies(p, q), rtol=1e-4, atol=1e-7)


def test_probabilities_that_underflow_leave_the_divergence_finite():
    # p = (1, 0), q = (0, 1) in float32; log q_1 = -300
    p, q = torch.tensor([[300.0, 0.0]]), torch.tensor([[0.0, 300.0]])
    assert kl_divergence(p, q).item() == pytest.approx(300.0)
    assert kl_divergence(p, p).item() == 0.0


def test_equal_distributions_have_divergence_0_and_slope_0():
    p, q = logits(0).requires_grad_(True), logits(0).requires_grad_(True)
    divergence = kl_divergence(p, q)
    assert divergence.tolist() == [0.0] * 6
    for gradient in torch.autograd.grad(divergence.sum(), (p, q)):
        np.testing.assert_allclose(gradient, torch.zeros(6, 4), rtol=0, atol=2.0**-22)  # a few units of rounding at 1
    # a shift of all logits changes no distribution
    np.testing.assert_allclose(kl_divergence(p, q + 5).detach(), np.zeros(6), rtol=0, atol=1e-6)


def test_gradients_in_closed_form():
    p, q = logits(0).requires_grad_(True), logits(1).requires_grad_(True)
    by_p, by_q = torch.autograd.grad(kl_divergence(p, q).sum(), (p, q))
    prob_p, prob_q = (special.softmax(z.detach().double().numpy(), axis=1) for z in (p, q))
    ratio = np.log(prob_p / prob_q)
    np.testing.assert_allclose(by_q, prob_q - prob_p, rtol=1e-4, atol=1e-6)
    divergence = entropies(p.detach(), q.detach())[:, None]
    np.testing.assert_allclose(by_p, prob_p * (ratio - divergence), rtol=1e-4, atol=1e-5)


@dataclass(frozen=True)
class Kept:
    """The inner loss, which also keeps the function that it hands to the attack."""

    functions: list = field(default_factory=list)

    def prepare(self, net, x, y, x_start):
        self.functions.append(KLToClean().prepare(net, x, y, x_start))
        return self.functions[-1]


@pytest.fixture
def net():
    """A network whose training mode answers otherwise: other statistics, and dropout."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(4, 4))
    net[0].running_mean.fill_(0.3)
    net[0].running_var.fill_(0.01)
    return net.train()


def test_the_attack_s_anchor_is_the_clean_image_in_evaluation_mode(net):
    x = torch.rand(6, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    y = torch.zeros(6, dtype=torch.int64)
    kept, seen = Kept(), []
    net.register_forward_pre_hook(lambda module, args: seen.append((args[0].detach().clone(), module.training)))
    attack = PGD(steps=2, rel_step_size=0.25, start=Gaussian(std=0.1), loss=kept)
    attack(net, x, y, ThreatModel("linf", "0.2"))
    assert [training for _, training in seen] == [False] * 3  # the anchor, then a pass a step
    assert torch.equal(seen[0][0], x)
    assert net.training
    clean = net.eval()(x).detach()
    (function,) = kept.functions
    np.testing.assert_allclose(function(logits(1), 0), entropies(clean, logits(1)), rtol=1e-4, atol=1e-6)


def test_labels_play_no_part(net):
    x = torch.rand(6, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    values = [KLToClean().prepare(net.eval(), x, labels, x)(logits(1), 0) for labels in (None, torch.ones(6))]
    assert torch.equal(*values)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_two_linear_classes_are_pushed_apart_as_far_as_the_ball_allows(norm, linear):
    # logits (w x, 0): KL to the clean prediction rises with |w (x' - x)|, so the end is x +- eps along w's direction
    weight = torch.tensor([[1.0, -2.0, 0.5, 3.0], [0.0, 0.0, 0.0, 0.0]])
    x = 0.4 + 0.2 * torch.rand(5, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    attack = PGD(steps=60, rel_step_size=0.25, start=Gaussian(std=0.001), loss=KLToClean())
    x_adv = attack(linear(weight), x, torch.zeros(5, dtype=torch.int64), ThreatModel(norm, "0.2"))
    moved = ((x_adv - x).flatten(1) @ weight[0]).abs()
    reach = 0.2 * (weight[0].abs().sum() if norm == "linf" else weight[0].norm())
    np.testing.assert_allclose(moved, reach.expand(5), rtol=1e-4)


def test_from_the_clean_image_itself_there_is_nothing_to_climb(linear):
    # equal logits to the last bit give p - q = 0 here, and so no direction: why TRADES starts beside x
    net = linear(torch.tensor([[1.0, -2.0, 0.5, 3.0], [1.0, -2.0, 0.5, 3.0]]))
    x = torch.full((1, 1, 2, 2), 0.5)
    attack = PGD(steps=3, rel_step_size=0.25, start=Clean(), loss=KLToClean())
    assert torch.equal(attack(net, x, torch.tensor([0]), ThreatModel("linf", "0.2")), x)
