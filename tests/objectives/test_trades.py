import copy
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from scipy import stats
from torch import nn
from torch.nn import functional as F

from robust_arch.attacks import PGD, Attack, Gaussian, KLToClean, ThreatModel
from robust_arch.errors import InputError
from robust_arch.objectives.natural import Natural
from robust_arch.objectives.trades import TRADES

CONFIG = Path(__file__).parents[2] / "conf" / "objective" / "trades.yaml"
THREAT = ThreatModel("linf", "0.2")
INNER = PGD(steps=10, rel_step_size=0.25, start=Gaussian(std=0.001), loss=KLToClean())
INDEX = torch.arange(6)
# another for each pixel: BatchNorm in training mode would undo a constant
NOISE = 0.1 * torch.randn(6, 1, 2, 2, generator=torch.Generator().manual_seed(3)).clamp(-2, 2)


@dataclass(frozen=True, kw_only=True)
class Shift(Attack):
    """Adds what it is told to, and notes what it is called with."""

    amount: torch.Tensor | float
    calls: list = field(default_factory=list)

    def run(self, net, x, y, threat, seed, index):
        self.calls.append((seed, index.tolist(), net.training))
        net(x)
        return x + self.amount


def batch():
    """Images that nothing of size 0.2 takes out of the box."""
    x = 0.25 + 0.5 * torch.rand(6, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    return x, torch.tensor([0, 1, 2, 0, 1, 2])


@pytest.fixture
def classes(linear):
    return linear(torch.randn(3, 4, generator=torch.Generator().manual_seed(1)), torch.tensor([0.3, -0.2, 0.1]))


@pytest.fixture
def normalised():
    """A curved network with BatchNorm, whose training mode answers otherwise than its evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)
        ).train()


def terms_by_formula(logits, logits_adv, y):
    """CE(f(x), y) and the mean of KL(p(x) || p(x')), in numpy's float64."""
    scores, scores_adv = (np.exp(np.asarray(z.detach(), dtype=np.float64)) for z in (logits, logits_adv))
    p, q = scores / scores.sum(axis=1, keepdims=True), scores_adv / scores_adv.sum(axis=1, keepdims=True)
    return -np.log(p[np.arange(len(y)), y]).mean(), (p * np.log(p / q)).sum(axis=1).mean()


@pytest.mark.parametrize("beta", [1.0, 6.0])
def test_value_by_the_formula(beta, classes):
    x, y = batch()
    loss = TRADES(name="trades", attack=Shift(amount=NOISE), beta=beta)(classes, x, y, THREAT, seed=0, index=INDEX)
    natural, divergence = terms_by_formula(classes(x), classes(x + NOISE), y)
    assert loss.total.item() == pytest.approx(natural + beta * divergence, rel=1e-5)
    assert loss.terms["natural_loss"].item() == pytest.approx(natural, rel=1e-5)
    assert loss.terms["kl"].item() == pytest.approx(divergence, rel=1e-4)
    # what is logged adds up to what is descended
    logged = loss.terms["natural_loss"] + beta * loss.terms["kl"]
    assert loss.total.item() == pytest.approx(logged.item(), rel=1e-6)
    np.testing.assert_allclose(loss.logits, classes(x + NOISE).detach(), rtol=1e-5)
    assert not loss.logits.requires_grad
    assert not any(value.requires_grad for value in loss.terms.values())


def test_value_by_hand(linear):
    # logits (10 log 3 (x - 1/2), 0): p = (1/2, 1/2) at x = 0.5 and q = (3/4, 1/4) at x' = 0.6
    net = linear(torch.tensor([[10 * math.log(3)], [0.0]]), torch.tensor([-5 * math.log(3), 0.0]))
    x = torch.full((1, 1, 1, 1), 0.5)
    loss = TRADES(name="trades", attack=Shift(amount=0.1), beta=6.0)(
        net, x, torch.tensor([0]), THREAT, seed=0, index=torch.arange(1)
    )
    assert loss.total.item() == pytest.approx(math.log(2) + 6 * (math.log(2 / 3) + math.log(2)) / 2, rel=1e-5)


def independent(net, x, x_adv, y, beta):
    """The same loss written with torch's own divergence, in the type of the network."""
    logits, logits_adv = net(x), net(x_adv)
    target, given = F.log_softmax(logits, dim=1), F.log_softmax(logits_adv, dim=1)
    return F.nll_loss(target, y) + beta * F.kl_div(given, target, reduction="batchmean", log_target=True)


def gradients(loss, net):
    return [g.double().numpy() for g in torch.autograd.grad(loss, list(net.parameters()), retain_graph=True)]


def test_gradient_flows_through_both_terms_and_both_passes(normalised):
    x, y = batch()
    exact = copy.deepcopy(normalised).double()
    total = TRADES(name="trades", attack=Shift(amount=NOISE), beta=6.0)(
        normalised, x, y, THREAT, seed=0, index=INDEX
    ).total
    expected = gradients(independent(exact, x.double(), x.double() + NOISE.double(), y, 6.0), exact)
    found = gradients(total, normalised)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)

    # each place where a detach could hide would show in the comparison above
    def cut(where):
        logits, logits_adv = exact(x.double()), exact(x.double() + NOISE.double())
        anchor, moved = (logits.detach(), logits_adv) if where == "clean" else (logits, logits_adv.detach())
        target, given = F.log_softmax(anchor, dim=1), F.log_softmax(moved, dim=1)
        divergence = F.kl_div(given, target, reduction="batchmean", log_target=True)
        return F.cross_entropy(logits, y) + 6 * divergence

    for where in ("clean", "adversarial"):
        assert np.abs(gradients(cut(where), exact)[-2] - expected[-2]).max() > 1e-3


def test_gradient_by_numerical_differentiation(classes):
    x, y = batch()
    objective = TRADES(name="trades", attack=Shift(amount=NOISE), beta=6.0)
    objective(classes, x, y, THREAT, seed=0, index=INDEX).total.backward()
    exact = copy.deepcopy(classes).double().requires_grad_(False)
    weight, step = exact[1].weight, 1e-6
    for position in np.ndindex(*weight.shape):
        values = []
        for sign in (1, -1):
            weight[position] += sign * step
            natural, divergence = terms_by_formula(exact(x.double()), exact(x.double() + NOISE.double()), y)
            values.append(natural + 6 * divergence)
            weight[position] -= sign * step
        slope = (values[0] - values[1]) / (2 * step)
        assert classes[1].weight.grad[position].item() == pytest.approx(slope, rel=1e-3, abs=1e-5)


def test_beta_0_is_natural_training(normalised):
    x, y = batch()
    other, attack = copy.deepcopy(normalised), Shift(amount=NOISE)
    loss = TRADES(name="trades", attack=attack, beta=0.0)(normalised, x, y, THREAT, seed=0, index=INDEX)
    natural = Natural(name="natural")(other, x, y, THREAT, seed=0, index=INDEX)
    assert torch.equal(loss.total, natural.total)
    assert torch.equal(loss.logits, natural.logits)
    for ours, theirs in zip(gradients(loss.total, normalised), gradients(natural.total, other), strict=True):
        assert np.array_equal(ours, theirs)
    for ours, theirs in zip(normalised.buffers(), other.buffers(), strict=True):
        assert torch.equal(ours, theirs)
    assert attack.calls == []


def test_batch_norm_sees_the_natural_pass_then_the_adversarial_one(normalised):
    x, y = batch()
    by_hand, reverse = copy.deepcopy(normalised), copy.deepcopy(normalised)
    x_adv = INNER(normalised, x, y, THREAT, seed=7, index=INDEX)
    TRADES(name="trades", attack=INNER)(normalised, x, y, THREAT, seed=7, index=INDEX)
    with torch.no_grad():
        for net, order in ((by_hand, (x, x_adv)), (reverse, (x_adv, x))):
            for images in order:
                net(images)
    for ours, theirs in zip(normalised.buffers(), by_hand.buffers(), strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(by_hand[0].running_mean, reverse[0].running_mean)  # the order shows
    assert normalised[0].num_batches_tracked == 2


def test_seed_and_index_go_to_the_attack_in_evaluation_mode(normalised):
    attack, index = Shift(amount=NOISE), torch.tensor([5, 9, 2, 7, 1, 0])
    TRADES(name="trades", attack=attack)(normalised, *batch(), THREAT, seed=17, index=index)
    assert attack.calls == [(17, index.tolist(), False)]
    assert all(module.training for module in normalised.modules())


@pytest.fixture
def configured():
    """The objective as its YAML file builds it."""
    return instantiate(OmegaConf.load(CONFIG))


def test_the_configured_attack_starts_beside_the_image_and_takes_ten_steps(configured, linear):
    net, seen = linear(torch.randn(3, 1000, generator=torch.Generator().manual_seed(0))), []
    net.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().clone()))
    x = torch.full((4, 1, 25, 40), 0.5)
    configured(net, x, torch.zeros(4, dtype=torch.int64), THREAT, seed=0, index=torch.arange(4))
    assert configured.beta == 6.0
    assert len(seen) == 1 + 10 + 2  # the anchor, the steps, the two passes of the loss
    anchor, start, second = seen[:3]
    assert torch.equal(anchor, x)
    assert stats.kstest((start - x).flatten().double().numpy(), stats.norm(scale=0.001).cdf).pvalue > 1e-3
    np.testing.assert_allclose((second - start).abs(), 0.25 * 0.2, rtol=0, atol=1e-6)


def trained(linear):
    """Three separable classes, learned: a network on which the attack has something to do."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3))
    x, y = batch()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    return net.requires_grad_(False)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_attack_climbs_the_divergence_of_every_example(norm, linear):
    net, (x, y), threat = trained(linear), batch(), ThreatModel(norm, "0.2")
    seen = []
    handle = net.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().clone()))
    x_adv = INNER(net, x, y, threat, seed=0, index=INDEX)
    handle.remove()

    def divergences(images):
        p, q = (torch.softmax(net(z).double(), dim=1).numpy() for z in (x, images))
        return stats.entropy(p, q, axis=1)

    assert (divergences(x_adv) > divergences(seen[1]) + 1e-3).all()
    # a random point of the surface does not do as well
    sideways = threat.region(x).project(x + torch.randn(x.shape, generator=torch.Generator().manual_seed(2)))
    assert divergences(x_adv).mean() > divergences(sideways).mean()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_loss_is_float32_where_the_network_is_not(norm, normalised):
    x, y = batch()
    threat, seen = ThreatModel(norm, "0.2"), []
    normalised.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().clone()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = TRADES(name="trades", attack=INNER)(normalised, x, y, threat, seed=0, index=INDEX)
        assert normalised(x).dtype == torch.bfloat16
    assert loss.total.dtype == torch.float32
    x_adv = seen[-2]
    assert x_adv.dtype == torch.float32
    assert not torch.equal(x_adv, x)
    assert (threat.distance(x.double(), x_adv.double()) <= 0.2).all()
    loss.total.backward()
    # weights that the attack's passes had left in the cache of casts would have no gradient
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in normalised[2].parameters())


@pytest.mark.parametrize("beta", [-1.0, -1e-9, float("nan")])
def test_a_negative_beta_is_named(beta):
    with pytest.raises(InputError, match=r"objective\.beta = .*: a finite number of at least 0"):
        TRADES(name="trades", attack=INNER, beta=beta)
