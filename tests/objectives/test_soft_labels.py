"""Objectives and attacks on labels that are probabilities: one-hot ones change nothing, others are expectations."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robust_arch.attacks import NFGSM, PGD, Clean, CrossEntropy, Gaussian, GuidedMargin, KLToClean, Margin, ThreatModel
from robust_arch.data.augment import CropFlip
from robust_arch.data.mixing import CutMix, MixUp
from robust_arch.errors import InputError
from robust_arch.objectives.mart import MART
from robust_arch.objectives.natural import Natural
from robust_arch.objectives.sat import SAT
from robust_arch.objectives.trades import TRADES
from robust_arch.training.recipe import Recipe
from robust_arch.training.schedule import Cosine
from robust_arch.training.weight_perturbation import AWP

THREAT = ThreatModel("linf", "0.1")
NEAR = partial(PGD, steps=3, rel_step_size=0.4, start=Gaussian(std=0.001))
OBJECTIVES = {
    "natural": Natural(name="natural"),
    "sat": SAT(name="sat", attack=PGD(steps=3, rel_step_size=0.4)),
    "n_fgsm": SAT(name="n_fgsm", attack=NFGSM()),
    "fgsm_rs": SAT(name="fgsm_rs", attack=PGD(steps=1, rel_step_size=1.25)),
    "trades": TRADES(name="trades", attack=NEAR(loss=KLToClean())),
    "trades_beta0": TRADES(name="trades", attack=NEAR(loss=KLToClean()), beta=0.0),
    "mart": MART(name="mart", attack=NEAR()),
}


@pytest.fixture
def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4)).double().float()


def batch():
    generator = torch.Generator().manual_seed(1)
    x, y = torch.rand(6, 1, 2, 2, generator=generator), torch.tensor([0, 1, 2, 3, 1, 0])
    return x, y, torch.softmax(2 * torch.randn(6, 4, generator=generator), dim=1)


def value_and_gradient(objective, net, x, y):
    loss = objective(net, x, y, THREAT, seed=5, index=torch.arange(len(x)))
    return loss.total.detach(), torch.autograd.grad(loss.total, list(net.parameters()))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_one_hot_labels_give_the_published_loss_and_gradient(name, net):
    x, y, _ = batch()
    hard, soft = (value_and_gradient(OBJECTIVES[name], net, x, each) for each in (y, F.one_hot(y, 4).float()))
    torch.testing.assert_close(soft[0], hard[0])
    for ours, published in zip(soft[1], hard[1], strict=True):
        torch.testing.assert_close(ours, published, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_outer_loss_is_the_mean_over_labels_drawn_from_the_soft_ones(name, net):
    x, _, soft = batch()
    x_adv = x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    expected = 0.0
    for example in range(6):
        for label in range(4):
            one = slice(example, example + 1)
            loss = OBJECTIVES[name].loss(net, x[one], x_adv[one], torch.tensor([label])).total
            expected += float(soft[example, label]) * float(loss.detach()) / 6
    assert float(OBJECTIVES[name].loss(net, x, x_adv, soft).total.detach()) == pytest.approx(expected, rel=1e-5)


def test_cross_entropy_of_soft_labels_by_hand(linear):
    # logits (log 3, 0): p = (3/4, 1/4); label (0.9, 0.1)
    net = linear(torch.tensor([[np.log(3.0)], [0.0]]))
    total = OBJECTIVES["natural"].loss(net, torch.ones(1, 1, 1, 1), None, torch.tensor([[0.9, 0.1]])).total
    assert float(total.detach()) == pytest.approx(0.9 * np.log(4 / 3) + 0.1 * np.log(4))


@pytest.mark.parametrize("smoothing", [0.1, 0.5])
def test_label_smoothing_is_torchs(smoothing, net):
    x, y, _ = batch()
    recipe = make(label_smoothing=smoothing)
    ours = OBJECTIVES["natural"].loss(net, x, x, recipe.soft_labels(y, 4)).total
    torch.testing.assert_close(ours, nn.CrossEntropyLoss(label_smoothing=smoothing)(net(x), y))
    # by hand: 1 - s + s / 4 for the label, s / 4 for the other classes
    torch.testing.assert_close(recipe.soft_labels(y, 4)[0], torch.tensor([1 - smoothing, 0, 0, 0]) + smoothing / 4)


@pytest.mark.parametrize("attack", [PGD(steps=1, rel_step_size=1.0, start=Clean()), NFGSM()])
def test_the_attack_climbs_cross_entropy_of_the_soft_labels(attack, linear):
    # d CE / dx = W^T (p - t): under half and half the first pixel moves neither way for equal logits, the second does
    weight = torch.tensor([[3.0, 1.0], [-3.0, 1.0], [0.0, -5.0]])
    net = linear(weight)
    x = torch.full((1, 1, 1, 2), 0.5)
    for soft in ([0.5, 0.5, 0.0], [0.8, 0.0, 0.2], [0.0, 0.1, 0.9]):
        noisy = x
        if isinstance(attack, NFGSM):  # the same noise for every label
            noisy = attack(net, x, torch.tensor([0]), THREAT) - 0.1 * torch.sign(
                (torch.softmax(weight @ x.flatten(), 0) - F.one_hot(torch.tensor(0), 3)) @ weight
            ).view_as(x)
        gradient = (torch.softmax(weight @ noisy.flatten(), 0) - torch.tensor(soft)) @ weight
        expected = noisy + 0.1 * torch.sign(gradient).view_as(x)
        torch.testing.assert_close(attack(net, x, torch.tensor([soft]), THREAT), expected)


@pytest.mark.parametrize(
    "attack",
    [
        PGD(steps=2, rel_step_size=0.5, loss=Margin()),
        PGD(steps=2, rel_step_size=0.5, loss=GuidedMargin()),
        PGD(steps=2, rel_step_size=0.5, loss=CrossEntropy(), restarts=2),
    ],
)
def test_an_attack_that_needs_a_label_is_refused_before_training(attack, net):
    objective, recipe = SAT(name="sat", attack=attack), make(label_smoothing=0.1)
    with pytest.raises(InputError, match=r"^objective = .*takes soft labels, which recipe\.label_smoothing, mixup and"):
        recipe.require_fits(objective, epochs=5)
    make().require_fits(objective, epochs=5)
    x, _, soft = batch()
    with pytest.raises(InputError, match=r"^y = .*expected int64 labels of shape \(6,\)$"):
        attack(net, x, soft, THREAT)


def test_soft_labels_of_other_shapes_are_refused(net):
    x, _, soft = batch()
    attack = PGD(steps=1, rel_step_size=1.0)
    for wrong, message in (
        (soft[:5], r"int64 labels of shape \(6,\), or probabilities \(6, K\)"),
        (soft[:, :3], "one probability per class, of which there are 4"),
        (-soft, "labels of at least 0"),
    ):
        with pytest.raises(InputError, match=message):
            attack(net, x, wrong, THREAT)


def test_no_attack_is_made_for_a_radius_of_zero():
    x, y, _ = batch()
    for objective in OBJECTIVES.values():
        assert objective.adversarial(None, x, y, ThreatModel("linf", 0), 0, torch.arange(6)) is x


def make(**changes):
    given = {"name": "r", "epochs": 3, "batch_size": 8, "optimizer": partial(torch.optim.SGD, lr=0.1)}
    return Recipe(**given, schedule=Cosine(), augment=CropFlip(padding=0, flip=False), **changes)


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({}, "r"),
        ({"eps_warmup": 3, "gradient_clip": 1.0}, "r"),
        ({"label_smoothing": 0.1}, "r+label_smoothing0.1"),
        ({"mixup": MixUp(alpha=0.2), "cutmix": CutMix(alpha=1, probability=0.5)}, "r+mixup0.2+cutmix1p0.5"),
        ({"cutmix": CutMix(window=20), "attack_warmup": 2}, "r+attack_warmup2+cutmix20px"),
        ({"mixup": MixUp(alpha=0.2, probability=0)}, "r"),
        ({"awp": AWP(gamma=0.005), "steps_per_epoch": 196}, "r+steps_per_epoch196+awp0.005"),
    ],
)
def test_the_recipes_label_in_records_names_its_ingredients(changes, label):
    assert make(**changes).label == label
