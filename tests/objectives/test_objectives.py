"""Each objective's value and gradient against closed forms, formulas in numpy's float64 and the authors' code."""

import copy
import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from scipy import stats
from torch import nn
from torch.nn import functional as F

from robust_arch.attacks import PGD, Attack, Gaussian, KLToClean, ThreatModel
from robust_arch.common.paths import conf_dir
from robust_arch.errors import InputError
from robust_arch.objectives.mart import MART, boosted_cross_entropy
from robust_arch.objectives.natural import Natural
from robust_arch.objectives.sat import SAT
from robust_arch.objectives.trades import TRADES

THREAT = ThreatModel("linf", "0.2")
INNER = PGD(steps=10, rel_step_size=0.25, start=Gaussian(std=0.001))
CLIMB = PGD(steps=10, rel_step_size=0.25, start=Gaussian(std=0.001), loss=KLToClean())
# another for each pixel: BatchNorm in training mode would undo a constant
NOISE = 0.1 * torch.randn(6, 1, 2, 2, generator=torch.Generator().manual_seed(3)).clamp(-2, 2)
both = pytest.mark.parametrize("kind", [TRADES, MART])


@dataclass(frozen=True, kw_only=True)
class Shift(Attack):
    """Adds what it is told to, and notes what it is called with."""

    amount: torch.Tensor | float = 0.1
    calls: list = field(default_factory=list)

    def run(self, net, x, y, threat, seed, index):
        self.calls.append((seed, index.tolist(), net.training))
        net(x)
        return x + self.amount


def batch(size=6, classes=4):
    """Images that nothing of size 0.2 takes out of the box."""
    x = 0.25 + 0.5 * torch.rand(6, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    return x[:size], torch.arange(size) % classes


def loss_of(kind, net, x, y, attack=None, seed=0, index=None, threat=THREAT, **settings):
    attack = Shift(amount=NOISE[: len(x)]) if attack is None else attack
    given = {} if kind is Natural else {"attack": attack}
    index = torch.arange(len(x)) if index is None else index
    return kind(name="x", **given, **settings)(net, x, y, threat, seed=seed, index=index)


@pytest.fixture
def classes(linear):
    """Four linear classes that meet in the middle of the box."""
    weight = 4 * torch.randn(4, 4, generator=torch.Generator().manual_seed(3))
    return linear(weight, -(weight @ torch.full((4,), 0.5)))


@pytest.fixture
def two_classes(linear):
    return linear(torch.tensor([[1.0, -2.0, 0.5, 3.0], [-1.0, 1.0, 2.0, -0.5]]), torch.tensor([0.2, -0.1]))


@pytest.fixture
def normalised():
    """A curved network with BatchNorm, whose training mode answers otherwise than its evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 4)
        ).train()


def gradients(loss, net):
    return [g.double().numpy() for g in torch.autograd.grad(loss, list(net.parameters()), retain_graph=True)]


def record_inputs(net):
    """The images that later calls are given."""
    seen = []
    net.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().clone()))
    return seen


def test_natural_is_the_mean_cross_entropy_by_hand(linear):
    # logits (log 3 x, 0) at x = 1: p = (3/4, 1/4); at x = 0: p = (1/2, 1/2)
    net = linear(torch.tensor([[math.log(3)], [0.0]]))
    loss = loss_of(Natural, net, torch.tensor([1.0, 0.0]).view(2, 1, 1, 1), torch.tensor([0, 1]))
    assert loss.total.item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    np.testing.assert_allclose(loss.logits, [[math.log(3), 0], [0, 0]], rtol=1e-6)


@pytest.mark.parametrize(("kind", "radius"), [(Natural, 0.0), (SAT, 0.2)])
def test_value_and_gradient_at_the_worst_case_of_a_linear_network(kind, radius, two_classes):
    x, y = batch(4, 2)
    loss = loss_of(kind, two_classes, x, y, PGD(steps=10, rel_step_size=0.25))
    loss.total.backward()
    weight, bias = (p.detach().double().numpy() for p in two_classes[1].parameters())
    # what the inner maximisation finds on two linear classes: x + radius sign(w_other - w_y)
    worst = x.numpy().reshape(4, -1) + np.float32(radius) * np.sign(weight[1 - y] - weight[y])
    # mean of -log p_y, and its derivative (p - onehot)^T x / B in the weights
    scores = np.exp(worst @ weight.T + bias)
    p = scores / scores.sum(axis=1, keepdims=True)
    assert loss.total.item() == pytest.approx(-np.log(p[np.arange(4), y]).mean(), rel=1e-5)
    # the attack's own gradients leave nothing behind in the weights
    expected = (p - np.eye(2)[y]).T @ worst / 4
    np.testing.assert_allclose(two_classes[1].weight.grad, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("kind", "shift"), [(Natural, 0.0), (SAT, 0.1)])
def test_batch_norm_sees_one_training_pass_and_none_of_the_attack(kind, shift, normalised):
    x, y = batch()
    loss_of(kind, normalised, x, y, Shift(amount=0.1))
    seen, norm = x.double().numpy() + shift, normalised[0]
    assert norm.num_batches_tracked == 1
    # one step of momentum 0.1 from mean 0 and variance 1
    assert norm.running_mean.item() == pytest.approx(0.1 * seen.mean(), rel=1e-5)
    assert norm.running_var.item() == pytest.approx(0.9 + 0.1 * seen.var(ddof=1), rel=1e-5)
    loss_of(kind, normalised, x, y, INNER)  # many steps of the attack
    assert norm.num_batches_tracked == 2


@pytest.mark.parametrize("kind", [SAT, TRADES, MART])
def test_seed_and_index_go_to_the_attack_in_evaluation_mode(kind, normalised):
    attack, index = Shift(amount=NOISE), torch.tensor([5, 9, 2, 7, 1, 0])
    loss_of(kind, normalised, *batch(), attack, seed=17, index=index)
    assert attack.calls == [(17, index.tolist(), False)]
    assert all(module.training for module in normalised.modules())


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(("kind", "attack"), [(Natural, None), (SAT, INNER), (TRADES, CLIMB), (MART, INNER)])
def test_the_loss_is_float32_where_the_network_is_not(kind, attack, norm, normalised):
    (x, y), threat, seen = batch(), ThreatModel(norm, "0.2"), record_inputs(normalised)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert normalised(x).dtype == torch.bfloat16
        loss = loss_of(kind, normalised, x, y, attack, threat=threat)
    assert loss.total.dtype == torch.float32
    assert not loss.logits.requires_grad
    assert loss.logits.shape == (6, 4)
    assert seen[-1].dtype == torch.float32
    assert torch.equal(seen[-1], x) == (kind is Natural)
    assert (threat.distance(x.double(), seen[-1].double()) <= 0.2).all()
    loss.total.backward()
    # weights that the attack's passes had left in the cache of casts would have no gradient
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in normalised[2].parameters())


def terms_by_formula(kind, logits, logits_adv, y):
    """The two terms in numpy's float64."""
    scores, scores_adv = (np.exp(np.asarray(z.detach(), dtype=np.float64)) for z in (logits, logits_adv))
    p, q = scores / scores.sum(axis=1, keepdims=True), scores_adv / scores_adv.sum(axis=1, keepdims=True)
    each = np.arange(len(y))
    own, divergence = p[each, y], (p * np.log(p / q)).sum(axis=1)
    if kind is TRADES:
        return -np.log(own).mean(), divergence.mean()
    wrong = np.where(np.eye(q.shape[1], dtype=bool)[y], 0, q).max(axis=1)
    return (-np.log(q[each, y]) - np.log(1.0001 - wrong)).mean(), (divergence * (1.0000001 - own)).mean()


@both
@pytest.mark.parametrize("size", [1, 2, 6])
@pytest.mark.parametrize("beta", [0.5, 6.0])
def test_value_by_the_formula(kind, beta, size, classes):
    x, y = batch(size)
    x_adv = x + NOISE[:size]
    right = classes(x_adv).argmax(dim=1) == y
    assert size < 6 or 0 < right.sum() < 6  # the most likely wrong class is sometimes the first, sometimes not
    loss = loss_of(kind, classes, x, y, beta=beta)
    first, second = terms_by_formula(kind, classes(x), classes(x_adv), y)
    assert loss.total.shape == ()
    assert loss.total.item() == pytest.approx(first + beta * second, rel=1e-5)
    names = ("natural_loss", "kl") if kind is TRADES else ("boosted_ce", "weighted_kl")
    logged = [loss.terms[name].item() for name in names]
    assert logged == [pytest.approx(first, rel=1e-5), pytest.approx(second, rel=1e-4)]
    # what is logged adds up to what is descended
    assert loss.total.item() == pytest.approx(logged[0] + beta * logged[1], rel=1e-6)
    np.testing.assert_allclose(loss.logits, classes(x_adv).detach(), rtol=1e-5, atol=1e-6)
    assert not loss.logits.requires_grad
    assert not any(value.requires_grad for value in loss.terms.values())


def test_values_by_hand(linear):
    # logits (10 log 3 (x - 1/2), 0): p = (1/2, 1/2) at x = 0.5 and q = (3/4, 1/4) at x' = 0.6
    net = linear(torch.tensor([[10 * math.log(3)], [0.0]]), torch.tensor([-5 * math.log(3), 0.0]))
    x = torch.full((1, 1, 1, 1), 0.5)
    divergence = (math.log(2 / 3) + math.log(2)) / 2
    total = loss_of(TRADES, net, x, torch.tensor([0]), Shift()).total
    assert total.item() == pytest.approx(math.log(2) + 6 * divergence, rel=1e-5)
    for label, own, wrong in ((0, 0.75, 0.25), (1, 0.25, 0.75)):
        total = loss_of(MART, net, x, torch.tensor([label]), Shift()).total
        expected = -math.log(own) - math.log(1.0001 - wrong) + 6 * divergence * 0.5000001
        assert total.item() == pytest.approx(expected, rel=1e-5)


def trades_by_torch(logits, logits_adv, y, beta, anchored=None):
    """TRADES with torch's own divergence, one side of which may be held constant."""
    target, given = (
        F.log_softmax(z.detach() if name == anchored else z, dim=1) for name, z in (("x", logits), ("x'", logits_adv))
    )
    return F.cross_entropy(logits, y) + beta * F.kl_div(given, target, reduction="batchmean", log_target=True)


def mart_as_published(logits, logits_adv, y, beta):
    """The loss as the authors' code forms it: two sorted candidates for the wrong class, and sums over B."""
    adv_probs, nat_probs = F.softmax(logits_adv, dim=1), F.softmax(logits, dim=1)
    top_two = torch.argsort(adv_probs, dim=1)[:, -2:]
    new_y = torch.where(top_two[:, -1] == y, top_two[:, -2], top_two[:, -1])
    boosted = F.cross_entropy(logits_adv, y) + F.nll_loss(torch.log(1.0001 - adv_probs + 1e-12), new_y)
    true_probs = torch.gather(nat_probs, 1, y.unsqueeze(1)).squeeze(1)  # theirs loses the batch where B = 1
    divergence = F.kl_div(torch.log(adv_probs + 1e-12), nat_probs, reduction="none").sum(dim=1)
    return boosted + beta * (1.0 / len(y)) * torch.sum(divergence * (1.0000001 - true_probs))


@pytest.mark.parametrize(("kind", "other"), [(TRADES, trades_by_torch), (MART, mart_as_published)])
@pytest.mark.parametrize("size", [2, 6])
def test_value_and_gradient_of_another_formulation(kind, other, size, normalised):
    x, y = batch(size)
    exact = copy.deepcopy(normalised).double()
    total = loss_of(kind, normalised, x, y).total
    logits = exact(x.double()), exact((x + NOISE[:size]).double())
    expected = other(*logits, y, 6.0)
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)
    for ours, theirs in zip(gradients(total, normalised), gradients(expected, exact), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=2e-5)
    # each place where a detach could hide would show in the comparison
    for anchored in ("x", "x'") if kind is TRADES and size == 6 else ():
        cut = gradients(trades_by_torch(*logits, y, 6.0, anchored), exact)
        assert np.abs(cut[-2] - gradients(expected, exact)[-2]).max() > 1e-3


@both
def test_gradient_by_numerical_differentiation(kind, classes):
    x, y = batch()
    loss_of(kind, classes, x, y).total.backward()
    exact = copy.deepcopy(classes).double().requires_grad_(False)
    weight, step, held = exact[1].weight, 1e-6, []
    own = torch.softmax(exact(x.double()), dim=1)[torch.arange(6), y].numpy()

    def values():
        """The formula, and MART's with the weight 1 - p_y(x) of each example held constant."""
        logits, logits_adv = exact(x.double()), exact((x + NOISE).double())
        first, second = terms_by_formula(kind, logits, logits_adv, y)
        p, q = (torch.softmax(z, dim=1).numpy() for z in (logits, logits_adv))
        return first + 6 * second, first + 6 * (stats.entropy(p, q, axis=1) * (1.0000001 - own)).mean()

    for position in np.ndindex(*weight.shape):
        around = []
        for sign in (1, -1):
            weight[position] += sign * step
            around.append(values())
            weight[position] -= sign * step
        slope, slope_held = ((high - low) / (2 * step) for high, low in zip(*around, strict=True))
        assert classes[1].weight.grad[position].item() == pytest.approx(slope, rel=1e-3, abs=1e-4)
        held.append(abs(slope - slope_held))
    # MART: the gradient flows through the weight of an example
    assert kind is TRADES or max(held) > 1e-2


@both
def test_batch_norm_sees_the_natural_pass_then_the_adversarial_one(kind, normalised):
    x, y = batch()
    by_hand, reverse = copy.deepcopy(normalised), copy.deepcopy(normalised)
    x_adv = CLIMB(normalised, x, y, THREAT, seed=7)
    loss_of(kind, normalised, x, y, CLIMB, seed=7)
    with torch.no_grad():
        for net, order in ((by_hand, (x, x_adv)), (reverse, (x_adv, x))):
            for images in order:
                net(images)
    assert all(map(torch.equal, normalised.buffers(), by_hand.buffers()))
    assert not torch.equal(by_hand[0].running_mean, reverse[0].running_mean)  # the order shows
    assert normalised[0].num_batches_tracked == 2
    assert normalised.training


@both
@pytest.mark.parametrize("beta", [-1.0, -1e-9, float("nan")])
def test_a_negative_beta_is_named(kind, beta):
    with pytest.raises(InputError, match=r"objective\.beta = .*: expected a finite number of at least 0"):
        kind(name="x", attack=INNER, beta=beta)


def test_trades_with_beta_0_is_natural_training(normalised):
    x, y = batch()
    other, attack = copy.deepcopy(normalised), Shift(amount=NOISE)
    loss, natural = loss_of(TRADES, normalised, x, y, attack, beta=0.0), loss_of(Natural, other, x, y)
    assert torch.equal(loss.total, natural.total)
    assert torch.equal(loss.logits, natural.logits)
    assert all(map(np.array_equal, gradients(loss.total, normalised), gradients(natural.total, other)))
    assert all(map(torch.equal, normalised.buffers(), other.buffers()))
    assert attack.calls == []


@pytest.mark.parametrize(("label", "wrong"), [(2, 0.3), (1, 0.4), (0, 0.4)], ids=["first", "second", "last"])
def test_the_wrong_class_is_the_most_likely_of_the_others(label, wrong):
    probabilities = torch.tensor([[0.1, 0.3, 0.4, 0.2]])
    value = boosted_cross_entropy(probabilities.log(), torch.tensor([label]))
    expected = -math.log(probabilities[0, label]) - math.log(1.0001 - wrong)
    assert value.shape == (1,)
    assert value.item() == pytest.approx(expected, rel=1e-5)


def test_mart_of_confident_examples(linear):
    for shifted in (0.0, 1000.0):
        # p_y = 1 at x and x': no cross-entropy, no divergence, and -log(1.0001 - 0) = -0.000099995 is left
        net = linear(torch.zeros(3, 4), torch.tensor([100.0, 0.0, 0.0]) + shifted)
        assert loss_of(MART, net, *batch(1), Shift()).total.item() == pytest.approx(-9.9995e-5, abs=2.0**-23)
    # p_j = 1 for a wrong j: 100 from the cross-entropy and -log(0.0001) from the boost
    net = linear(torch.zeros(3, 4), torch.tensor([0.0, 100.0, 0.0]))
    total = loss_of(MART, net, *batch(1), Shift()).total
    # 1.0001 - 1 is known to float32's 2^-24 only, some 0.06 % of it
    assert total.item() == pytest.approx(100 + math.log(10_000), abs=2e-3)
    assert all(np.isfinite(gradient).all() for gradient in gradients(total, net))


def test_a_misclassified_example_weighs_more_in_mart(linear):
    # the same divergence twice, once with p_y = 0.9 and once with p_y = 0.1: weights 0.1 and 0.9
    net = linear(math.log(9) * torch.tensor([[1.0], [0.0]]))
    losses = [loss_of(MART, net, torch.ones(1, 1, 1, 1), torch.tensor([y]), Shift(amount=-0.1)) for y in (0, 1)]
    right, wrong = (loss.terms["weighted_kl"].item() for loss in losses)
    assert wrong / right == pytest.approx(9, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "overrides", "std"),
    [
        ("trades", [], 0.001),
        ("mart", [], 0.001),  # the authors'
        ("mart", ["attack.start.std=0", "attack.start.rel_std=0.25"], 0.25 * 0.2),  # Huang et al. 2021
    ],
)
def test_the_configured_attack_takes_ten_steps_from_gaussian_noise(name, overrides, std, linear):
    settings = OmegaConf.load(conf_dir() / "objective" / f"{name}.yaml")
    objective = instantiate(OmegaConf.merge(settings, OmegaConf.from_dotlist(overrides)))
    weight = torch.randn(3, 1000, generator=torch.Generator().manual_seed(0))
    net = linear(weight)
    seen = record_inputs(net)
    x, y = torch.full((4, 1, 25, 40), 0.5), torch.tensor([0, 1, 2, 0])
    objective(net, x, y, THREAT, seed=0, index=torch.arange(4))
    assert objective.beta == 6.0
    if name == "trades":
        assert torch.equal(seen.pop(0), x)  # the anchor
    assert len(seen) == 10 + 2  # the steps, the two passes of the loss
    start, second = seen[:2]
    # 0.2 is four deviations of the larger noise: what lies beyond is projected, one in 16,000
    assert stats.kstest((start - x).flatten().double().numpy(), stats.norm(scale=std).cdf).pvalue > 1e-3
    inside = (start - x).abs() < 0.75 * 0.2 - 1e-6
    assert inside.float().mean() > 0.99
    np.testing.assert_allclose((second - start).abs()[inside], 0.25 * 0.2, rtol=0, atol=1e-6)
    if name == "mart":
        # the step climbs cross-entropy, whose slope in the logits is p - onehot
        p = torch.softmax(start.flatten(1) @ weight.T, dim=1) - F.one_hot(y, 3)
        uphill = (p @ weight).view(x.shape)
        np.testing.assert_allclose((second - start)[inside], 0.05 * uphill.sign()[inside], rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_attack_of_trades_climbs_the_divergence_of_every_example(norm):
    # three separable classes, learned: a network on which the attack has something to do
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3))
    (x, y), threat = batch(classes=3), ThreatModel(norm, "0.2")
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    seen = record_inputs(net.requires_grad_(False))
    x_adv = CLIMB(net, x, y, threat, seed=0)
    start = seen[1]

    def divergences(images):
        p, q = (torch.softmax(net(z).double(), dim=1).numpy() for z in (x, images))
        return stats.entropy(p, q, axis=1)

    assert (divergences(x_adv) > divergences(start) + 1e-3).all()
    # a random point of the surface does not do as well
    sideways = threat.region(x).project(x + torch.randn(x.shape, generator=torch.Generator().manual_seed(2)))
    assert divergences(x_adv).mean() > divergences(sideways).mean()
