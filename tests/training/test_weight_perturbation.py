"""Adversarial weight perturbation by hand, and against a second implementation by functional calls."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from small_training import STEPS, Small, train
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from robust_arch.attacks import PGD, Gaussian, KLToClean
from robust_arch.errors import InputError
from robust_arch.objectives.mart import MART
from robust_arch.objectives.natural import Natural
from robust_arch.objectives.sat import SAT
from robust_arch.objectives.trades import TRADES
from robust_arch.training.averaging import EMA
from robust_arch.training.weight_perturbation import AWP

INNER = PGD(steps=2, rel_step_size=0.5)
NEAR = PGD(steps=2, rel_step_size=0.5, start=Gaussian(std=0.001), loss=KLToClean())
seen = []


def note(net, x, x_adv, y):
    seen.append((x, x_adv, y, {key: value.clone() for key, value in net.state_dict().items()}))


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@dataclass(frozen=True, kw_only=True)
class NotingNatural(Natural):
    def loss(self, net, x, x_adv, y):
        note(net, x, x_adv, y)
        return super().loss(net, x, x_adv, y)


@dataclass(frozen=True, kw_only=True)
class NotingTRADES(TRADES):
    def adversarial(self, net, x, y, threat, seed, index):
        # what attacks see are the weights as they are, in every step
        reference = Small().eval()
        reference.load_state_dict({key.removeprefix("net."): value for key, value in net.state_dict().items()})
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            torch.testing.assert_close(net.attacked(x)(x), reference(x), rtol=0.1, atol=0.02)
        return super().adversarial(net, x, y, threat, seed, index)

    def loss(self, net, x, x_adv, y):
        note(net, x, x_adv, y)
        return super().loss(net, x, x_adv, y)


def test_the_step_of_a_linear_network_by_hand(tmp_path):
    # cross-entropy of a linear network: its gradient is (p - onehot) x^T / n, and that of the bias (p - onehot) / n
    seen.clear()
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    gamma, rate, decay = 0.3, 0.5, 1e-2
    *_, states = train(tmp_path, net=net, objective=NotingNatural(name="n"), epochs=1, lr=rate, awp=AWP(gamma=gamma))
    (x, _, y, _), (again, *_) = seen[:2]  # the two passes of the first step
    assert torch.equal(x, again)
    w, b = (states[0][f"1.{name}"].double().numpy() for name in ("weight", "bias"))
    x, onehot = x.flatten(1).double().numpy(), np.eye(3)[y]

    def gradients(weight):
        difference = (softmax(x @ weight.T + b) - onehot) / len(x)
        return difference.T @ x, difference.sum(axis=0)

    g, _ = gradients(w)
    perturbed = w + gamma * np.linalg.norm(w) * g / np.linalg.norm(g)
    assert np.linalg.norm(perturbed - w) == pytest.approx(gamma * np.linalg.norm(w))
    dw, db = gradients(perturbed)
    for name, before, gradient in (("weight", w, dw), ("bias", b, db)):
        expected = before - rate * (gradient + decay * before)
        np.testing.assert_allclose(states[1][f"1.{name}"].numpy(), expected, rtol=1e-5, atol=1e-6)
    plain, _ = gradients(w)
    assert np.abs(dw - plain).max() > 1e-3  # perturbed or not makes a difference that the test would see


def trades_loss(params, buffers, x, x_adv, y, beta=6.0):
    """TRADES by torch's own functions, in train mode; `buffers` move."""
    net = Small()
    logits = functional_call(net, {**params, **buffers}, (x,)).float()
    logits_adv = functional_call(net, {**params, **buffers}, (x_adv,)).float()
    target = F.log_softmax(logits, dim=1)
    divergence = F.kl_div(F.log_softmax(logits_adv, dim=1), target, reduction="batchmean", log_target=True)
    return F.cross_entropy(logits, y) + beta * divergence


@pytest.mark.parametrize("precision", ["32", "bf16-mixed"])
def test_training_is_that_of_a_second_implementation(tmp_path, precision):
    seen.clear()
    gamma, rate, clip = 0.4, 0.2, 0.5
    objective = NotingTRADES(name="t", attack=NEAR)
    *_, states = train(
        tmp_path,
        objective=objective,
        epochs=2,
        lr=rate,
        clip=clip,
        precision=precision,
        fold=True,
        awp=AWP(gamma=gamma),
    )
    assert len(seen) == 2 * 2 * STEPS
    names = [name for name, _ in Small().named_parameters()]
    momentum = {name: torch.zeros(()) for name in names}
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if precision == "32" else {"rtol": 2e-2, "atol": 4e-3}
    clipped = 0
    for step in range(2 * STEPS):
        x, x_adv, y, at_first = seen[2 * step]
        state = states[step]
        assert all(torch.equal(state[key], at_first[f"net.{key}"]) for key in state)
        params = {name: state[name].clone().requires_grad_() for name in names}
        buffers = {key: value.clone() for key, value in state.items() if key not in names}

        def differentiate(at, moved, batch=(x, x_adv, y)):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision != "32"):
                return torch.autograd.grad(trades_loss(at, moved, *batch), list(at.values()))

        first = dict(
            zip(names, differentiate(params, {key: each.clone() for key, each in buffers.items()}), strict=True)
        )
        perturbed = {}
        for name, value in params.items():
            shift = torch.zeros_like(value)
            if name in ("0.weight", "6.weight"):  # the convolution and the linear layer; no bias, no BatchNorm
                shift = gamma * value.detach().norm() * first[name] / first[name].norm()
            perturbed[name] = (value.detach() + shift).requires_grad_()
        gradients = dict(zip(names, differentiate(perturbed, buffers), strict=True))
        for name in names:
            torch.testing.assert_close(seen[2 * step + 1][3][f"net.{name}"], perturbed[name].detach(), **tolerance)
        norm = torch.cat([each.flatten() for each in gradients.values()]).norm()
        clipped += int(norm > clip)
        rate_now = rate * (1 + math.cos(math.pi * step / (2 * STEPS))) / 2
        for name in names:
            gradient = gradients[name] * min(1.0, clip / float(norm)) + 1e-2 * state[name]
            momentum[name] = 0.9 * momentum[name] + gradient
            expected = state[name] - rate_now * momentum[name]
            torch.testing.assert_close(states[step + 1][name], expected, **tolerance)
        # the statistics have seen one natural and one adversarial pass, at the perturbed weights
        assert int(states[step + 1]["1.num_batches_tracked"]) == 2 * (step + 1)
        for key in ("1.running_mean", "1.running_var"):
            torch.testing.assert_close(states[step + 1][key], buffers[key], **tolerance)
    assert clipped


@pytest.mark.parametrize(
    "objective",
    [
        Natural(name="natural"),
        SAT(name="sat", attack=INNER),
        TRADES(name="trades", attack=NEAR),
        MART(name="mart", attack=INNER),
    ],
    ids=lambda objective: objective.name,
)
def test_weights_are_restored_to_the_last_bit(tmp_path, objective):
    *_, states = train(tmp_path, objective=objective, epochs=1, lr=0.0, awp=AWP(gamma=0.7), averaging=EMA())
    names = [name for name, _ in Small().named_parameters()]
    assert all(torch.equal(state[name], states[0][name]) for state in states for name in names)


def test_the_first_epochs_are_without(tmp_path):
    runs = [
        train(tmp_path / str(number), epochs=3, awp=awp)[-1]
        for number, awp in enumerate((AWP(), AWP(gamma=0.01, warmup_epochs=2), AWP(gamma=0.01)))
    ]
    same = [[all(torch.equal(one[key], other[key]) for key in one) for one, other in zip(runs[0], run, strict=True)]
            for run in runs[1:]]  # fmt: skip
    assert same == [[True] * (1 + 2 * STEPS) + [False] * STEPS, [True] + [False] * 3 * STEPS]


def test_records_name_it():
    assert [str(AWP(gamma=0.005)), str(AWP(gamma=0.01, warmup_epochs=10))] == ["awp0.005", "awp0.01:warmup10"]


def test_a_tensor_without_gradient_or_norm_stays():
    net = nn.ModuleDict({"used": nn.Linear(2, 2), "unused": nn.Linear(2, 2), "zero": nn.Linear(2, 2)})
    nn.init.zeros_(net["zero"].weight)
    state = {key: value.clone() for key, value in net.state_dict().items()}
    loss = net["zero"](net["used"](torch.ones(1, 2))).sum()
    before = AWP(gamma=0.1).perturb(net, loss, list)
    assert [weight.shape for weight, _ in before] == [(2, 2)] * 3
    assert all(torch.equal(net.state_dict()[key], state[key]) for key in state)  # no gradient reaches `used`


def test_the_next_pass_under_autocast_sees_the_perturbed_weights():
    # inside one context torch keeps the weights that it has converted
    torch.manual_seed(0)
    net, x = nn.Linear(4, 4), torch.rand(3, 4)
    with torch.autocast("cpu", torch.bfloat16):
        AWP(gamma=10.0).perturb(net, net(x).float().square().sum(), list)
        found = net(x).detach().float()
    torch.testing.assert_close(found, net(x).detach(), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gamma": 0}, r"recipe\.awp\.gamma = 0: expected a finite number greater than 0, or null"),
        ({"gamma": -0.1}, "gamma"),
        ({"gamma": math.inf}, "gamma"),
        ({"gamma": True}, "gamma"),
        ({"gamma": 0.1, "warmup_epochs": -1}, "warmup_epochs = -1: expected an integer of at least 0"),
        ({"warmup_epochs": 3}, r"recipe\.awp\.warmup_epochs = 3: expected 0 where recipe\.awp\.gamma is null"),
    ],
)
def test_a_value_that_is_not_allowed_is_named(values, message):
    with pytest.raises(InputError, match=message):
        AWP(**values)
