import copy
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from scipy import stats
from torch import nn
from torch.nn import functional as F

from robust_arch.attacks import PGD, Attack, Gaussian, ThreatModel
from robust_arch.errors import InputError
from robust_arch.objectives.mart import MART, boosted_cross_entropy

CONFIG = Path(__file__).parents[2] / "conf" / "objective" / "mart.yaml"
THREAT = ThreatModel("linf", "0.2")
INNER = PGD(steps=10, rel_step_size=0.25, start=Gaussian(std=0.001))
# another for each pixel: BatchNorm in training mode would undo a constant
NOISE = 0.1 * torch.randn(6, 1, 2, 2, generator=torch.Generator().manual_seed(3)).clamp(-2, 2)


@dataclass(frozen=True, kw_only=True)
class Shift(Attack):
    """Adds what it is told to."""

    amount: torch.Tensor | float

    def run(self, net, x, y, threat, seed, index):
        return x + self.amount


def batch(size=6):
    """Images that nothing of size 0.2 takes out of the box."""
    x = 0.25 + 0.5 * torch.rand(6, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    return x[:size], torch.tensor([0, 1, 2, 3, 0, 1])[:size]


def mart(net, x, y, attack=None, beta=6.0, seed=0):
    attack = Shift(amount=NOISE[: len(x)]) if attack is None else attack
    return MART(name="mart", attack=attack, beta=beta)(net, x, y, THREAT, seed=seed, index=torch.arange(len(x)))


@pytest.fixture
def classes(linear):
    """Four linear classes that meet in the middle of the box."""
    weight = 4 * torch.randn(4, 4, generator=torch.Generator().manual_seed(3))
    return linear(weight, -(weight @ torch.full((4,), 0.5)))


@pytest.fixture
def normalised():
    """A curved network with BatchNorm, whose training mode answers otherwise than its evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 4)
        ).train()


def terms_by_formula(logits, logits_adv, y):
    """The boosted cross-entropy and the weighted divergence, example by example in numpy's float64."""
    boosted, weighted = [], []
    for z, z_adv, label in zip(logits, logits_adv, y, strict=True):
        scores, scores_adv = (np.exp(np.asarray(v.detach(), dtype=np.float64)) for v in (z, z_adv))
        p, q = scores / scores.sum(), scores_adv / scores_adv.sum()
        wrong = max(q[j] for j in range(len(q)) if j != label)
        boosted.append(-math.log(q[label]) - math.log(1.0001 - wrong))
        weighted.append((p * np.log(p / q)).sum() * (1.0000001 - p[label]))
    return np.mean(boosted), np.mean(weighted)


def published(logits, logits_adv, y, beta):
    """The loss as the authors' code forms it: two sorted candidates for the wrong class, and sums over B."""
    adv_probs, nat_probs = F.softmax(logits_adv, dim=1), F.softmax(logits, dim=1)
    top_two = torch.argsort(adv_probs, dim=1)[:, -2:]
    new_y = torch.where(top_two[:, -1] == y, top_two[:, -2], top_two[:, -1])
    boosted = F.cross_entropy(logits_adv, y) + F.nll_loss(torch.log(1.0001 - adv_probs + 1e-12), new_y)
    true_probs = torch.gather(nat_probs, 1, y.unsqueeze(1)).squeeze(1)  # theirs loses the batch where B = 1
    divergence = F.kl_div(torch.log(adv_probs + 1e-12), nat_probs, reduction="none").sum(dim=1)
    return boosted + beta * (1.0 / len(y)) * torch.sum(divergence * (1.0000001 - true_probs))


@pytest.mark.parametrize("size", [1, 2, 6])
@pytest.mark.parametrize("beta", [0.0, 1.0, 6.0])
def test_value_by_the_formula(beta, size, classes):
    x, y = batch(size)
    x_adv = x + NOISE[:size]
    right = classes(x_adv).argmax(dim=1) == y
    assert size < 6 or 0 < right.sum() < 6  # the most likely wrong class is sometimes the first, sometimes not
    loss = mart(classes, x, y, beta=beta)
    boosted, weighted = terms_by_formula(classes(x), classes(x_adv), y)
    assert loss.total.shape == ()
    assert loss.total.item() == pytest.approx(boosted + beta * weighted, rel=1e-5)
    assert loss.terms["boosted_ce"].item() == pytest.approx(boosted, rel=1e-5)
    assert loss.terms["weighted_kl"].item() == pytest.approx(weighted, rel=1e-4)
    # what is logged adds up to what is descended
    logged = loss.terms["boosted_ce"] + beta * loss.terms["weighted_kl"]
    assert loss.total.item() == pytest.approx(logged.item(), rel=1e-6)
    np.testing.assert_allclose(loss.logits, classes(x_adv).detach(), rtol=1e-5, atol=1e-6)
    assert not loss.logits.requires_grad
    assert not any(value.requires_grad for value in loss.terms.values())


def gradients(loss, net):
    return [g.double().numpy() for g in torch.autograd.grad(loss, list(net.parameters()), retain_graph=True)]


@pytest.mark.parametrize("size", [2, 6])
def test_value_and_gradient_of_the_published_formulation(size, normalised):
    x, y = batch(size)
    exact = copy.deepcopy(normalised).double()
    total = mart(normalised, x, y).total
    expected = published(exact(x.double()), exact((x + NOISE[:size]).double()), y, 6.0)
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)
    for ours, theirs in zip(gradients(total, normalised), gradients(expected, exact), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=2e-5)


def test_gradient_flows_through_the_weight_of_an_example(classes):
    # by numerical differentiation of the formula; with 1 - p_y(x) held constant the slopes would be others
    x, y = batch()
    mart(classes, x, y).total.backward()
    exact = copy.deepcopy(classes).double().requires_grad_(False)
    weight, step, held = exact[1].weight, 1e-6, []

    def value(own):
        logits, logits_adv = exact(x.double()), exact((x + NOISE).double())
        boosted, weighted = terms_by_formula(logits, logits_adv, y)
        p, q = (torch.softmax(z, dim=1).numpy() for z in (logits, logits_adv))
        return boosted + 6 * weighted, boosted + 6 * (stats.entropy(p, q, axis=1) * (1.0000001 - own)).mean()

    own = torch.softmax(exact(x.double()), dim=1)[torch.arange(6), y].numpy()
    for position in np.ndindex(*weight.shape):
        values = []
        for sign in (1, -1):
            weight[position] += sign * step
            values.append(value(own))
            weight[position] -= sign * step
        slope, slope_held = ((high - low) / (2 * step) for high, low in zip(*values, strict=True))
        assert classes[1].weight.grad[position].item() == pytest.approx(slope, rel=1e-3, abs=1e-4)
        held.append(abs(slope - slope_held))
    assert max(held) > 1e-2


def test_value_by_hand(linear):
    # logits (10 log 3 (x - 1/2), 0): p = (1/2, 1/2) at x = 0.5 and q = (3/4, 1/4) at x' = 0.6
    net = linear(torch.tensor([[10 * math.log(3)], [0.0]]), torch.tensor([-5 * math.log(3), 0.0]))
    x = torch.full((1, 1, 1, 1), 0.5)
    divergence = (math.log(2 / 3) + math.log(2)) / 2
    for label, own, wrong in ((0, 0.75, 0.25), (1, 0.25, 0.75)):
        loss = mart(net, x, torch.tensor([label]), Shift(amount=0.1))
        expected = -math.log(own) - math.log(1.0001 - wrong) + 6 * divergence * 0.5000001
        assert loss.total.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("label", "wrong"),
    [(2, 0.3), (1, 0.4), (0, 0.4)],
    ids=["the true class is the first", "the second", "the last"],
)
def test_the_wrong_class_is_the_most_likely_of_the_others(label, wrong):
    probabilities = torch.tensor([[0.1, 0.3, 0.4, 0.2]])
    value = boosted_cross_entropy(probabilities.log(), torch.tensor([label]))
    expected = -math.log(probabilities[0, label]) - math.log(1.0001 - wrong)
    assert value.shape == (1,)
    assert value.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("shifted", [0.0, 1000.0])
def test_a_confident_correct_example_costs_minus_a_ten_thousandth(shifted, linear):
    # p_y = 1 at x and x': no cross-entropy, no divergence, and -log(1.0001 - 0) = -0.000099995 is left
    net = linear(torch.zeros(3, 4), torch.tensor([100.0, 0.0, 0.0]) + shifted)
    loss = mart(net, *batch(1), Shift(amount=0.1))
    assert loss.total.item() == pytest.approx(-9.9995e-5, abs=2.0**-23)


def test_a_confident_wrong_example_has_a_finite_loss_and_gradient(linear):
    # p_j = 1 for a wrong j: 100 from the cross-entropy and -log(0.0001) from the boost
    net = linear(torch.zeros(3, 4), torch.tensor([0.0, 100.0, 0.0]))
    loss = mart(net, *batch(1), Shift(amount=0.1))
    # 1.0001 - 1 is known to float32's 2^-24 only, some 0.06 % of it
    assert loss.total.item() == pytest.approx(100 + math.log(10_000), abs=2e-3)
    assert all(np.isfinite(gradient).all() for gradient in gradients(loss.total, net))


def test_a_misclassified_example_weighs_more(linear):
    # the same divergence twice, once with p_y = 0.9 and once with p_y = 0.1: weights 0.1 and 0.9
    net = linear(math.log(9) * torch.tensor([[1.0], [0.0]]))
    x = torch.ones(1, 1, 1, 1)
    shares = []
    for label in (0, 1):
        terms = mart(net, x, torch.tensor([label]), Shift(amount=-0.1)).terms
        shares.append(terms["weighted_kl"].item())
    assert shares[1] / shares[0] == pytest.approx(9, rel=1e-5)


def test_batch_norm_sees_the_natural_pass_then_the_adversarial_one(normalised):
    x, y = batch()
    by_hand, reverse = copy.deepcopy(normalised), copy.deepcopy(normalised)
    x_adv = INNER(normalised, x, y, THREAT, seed=7)
    mart(normalised, x, y, INNER, seed=7)
    with torch.no_grad():
        for net, order in ((by_hand, (x, x_adv)), (reverse, (x_adv, x))):
            for images in order:
                net(images)
    for ours, theirs in zip(normalised.buffers(), by_hand.buffers(), strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(by_hand[0].running_mean, reverse[0].running_mean)  # the order shows
    assert normalised.training


@pytest.mark.parametrize(
    ("overrides", "std"),
    [([], 0.001), (["attack.start.std=0", "attack.start.rel_std=0.25"], 0.25 * 0.2)],
    ids=["the authors'", "Huang et al. 2021"],
)
def test_the_configured_attack_starts_from_gaussian_noise(overrides, std, linear):
    objective = instantiate(OmegaConf.merge(OmegaConf.load(CONFIG), OmegaConf.from_dotlist(overrides)))
    weight, seen = torch.randn(3, 1000, generator=torch.Generator().manual_seed(0)), []
    net = linear(weight)
    net.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().clone()))
    x, y = torch.full((4, 1, 25, 40), 0.5), torch.tensor([0, 1, 2, 0])
    objective(net, x, y, THREAT, seed=0, index=torch.arange(4))
    assert objective.beta == 6.0
    assert len(seen) == 10 + 2  # the steps, the two passes of the loss
    offset = (seen[0] - x).flatten().double().numpy()
    # 0.2 is four deviations of the larger noise: what lies beyond is projected, one in 16,000
    assert stats.kstest(offset, stats.norm(scale=std).cdf).pvalue > 1e-3
    # the step climbs cross-entropy, whose slope in the logits is p - onehot
    p = torch.softmax(seen[0].flatten(1) @ weight.T, dim=1) - F.one_hot(y, 3)
    uphill = (p @ weight).view(x.shape)
    inside = (seen[0] - x).abs() < 0.75 * 0.2 - 1e-6
    assert inside.float().mean() > 0.99
    np.testing.assert_allclose((seen[1] - seen[0])[inside], 0.05 * uphill.sign()[inside], rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_loss_is_float32_where_the_network_is_not(norm, normalised):
    (x, y), threat, seen = batch(), ThreatModel(norm, "0.2"), []
    normalised.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().clone()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert normalised(x).dtype == torch.bfloat16
        loss = MART(name="mart", attack=INNER)(normalised, x, y, threat, seed=0, index=torch.arange(6))
    assert loss.total.dtype == torch.float32
    x_adv = seen[-1]
    assert x_adv.dtype == torch.float32
    assert not torch.equal(x_adv, x)
    assert (threat.distance(x.double(), x_adv.double()) <= 0.2).all()
    loss.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in normalised[2].parameters())


@pytest.mark.parametrize("beta", [-1.0, float("nan")])
def test_a_negative_beta_is_named(beta):
    with pytest.raises(InputError, match=r"objective\.beta = .*: a finite number of at least 0"):
        MART(name="mart", attack=INNER, beta=beta)
