"""Attacks on linear networks, whose distance to the decision boundary and worst point are known in closed form."""

import math

import numpy as np
import pytest
import torch
from scipy import optimize, stats

from robust_arch.attacks import PGD, Bernoulli, Clean, CrossEntropy, Gaussian, Margin, ThreatModel, Uniform
from robust_arch.common import randomness
from robust_arch.errors import InputError

SHAPE = (1, 2, 3)

FGSM = PGD(steps=1, rel_step_size=1.0, start=Clean())
PGD20 = PGD(steps=20, rel_step_size=0.1)
CW40 = PGD(steps=40, rel_step_size=0.1, loss=Margin())
ATTACKS = {"fgsm": FGSM, "pgd20": PGD20, "cw40": CW40}
NORMS = pytest.mark.parametrize("norm", ["linf", "l2"])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def inner_images(batch):
    """Images that stay inside the box under any eps up to 0.3."""
    return 0.3 + 0.4 * torch.rand(batch, *SHAPE, generator=generator())


def distances(norm, net, x, y):
    """Distance of each example to the nearest decision boundary of a linear network, ignoring the box."""
    weight, bias = (parameter.detach().double() for parameter in net[1].parameters())
    logits = x.double().flatten(1) @ weight.T + bias
    gap = logits.gather(1, y[:, None]) - logits
    slope = torch.linalg.vector_norm(weight[y][:, None, :] - weight[None], ord=1 if norm == "linf" else 2, dim=2)
    return (gap / slope).nan_to_num(nan=torch.inf).amin(dim=1)


def fooled(attack, net, x, y, norm, eps):
    return net(attack(net, x, y, ThreatModel(norm, float(eps)))).argmax(dim=1) != y


@pytest.fixture
def two_classes(linear):
    weight = torch.randn(2, 6, generator=generator(1))
    return linear(weight, -(weight @ torch.full((6,), 0.5)))  # the boundary passes through the middle of the box


def walk_factor(norm, attack):
    """How much further than the distance an l2 attack with a random start may need to go.

    From anywhere in the ball, `walk` = steps * rel_step_size radii along u end at least as close to u as the point
    x0 + walk eps u does: within the angle whose sine is 1 / walk.
    """
    walk = math.inf if norm == "linf" or attack is FGSM else attack.steps * attack.rel_step_size
    return 1 / math.sqrt(1 - 1 / walk**2)


@NORMS
@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_two_classes_fall_exactly_beyond_their_distance(attack, batch, norm, two_classes):
    x, factor = inner_images(batch), walk_factor(norm, attack)
    y = two_classes(x).argmax(dim=1)
    distance = distances(norm, two_classes, x, y)
    assert distance.max() * 1.001 * factor < 0.3
    # within a thousandth of each example's own distance, on both sides
    for eps in torch.cat([distance * 0.999, distance * 1.001 * factor]):
        result = fooled(attack, two_classes, x, y, norm, eps)
        assert not result[distance > eps].any()
        assert result[distance * factor < eps].all()


# any two classes have weights at the same distance: the nearest boundary stays the nearest
EQUAL_SLOPES = {
    "linf": (torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0]).diag(), torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0])),
    "l2": (torch.eye(5), torch.tensor([0.05, 0.0, -0.05, 0.1, 0.0])),
}


@NORMS
@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize(("steps", "rel_step_size"), [(1, 1.0), (40, 0.1)])
def test_the_margin_finds_the_nearest_of_many_classes(steps, rel_step_size, batch, norm, linear):
    weight, bias = EQUAL_SLOPES[norm]
    net = linear(torch.nn.functional.pad(weight, (0, 1)), bias)
    x = inner_images(batch)
    y = net(x).argmax(dim=1)
    distance = distances(norm, net, x, y)
    assert distance.max() < 0.29
    # from the image itself; a random start may first climb towards another class
    attack = PGD(steps=steps, rel_step_size=rel_step_size, start=Clean(), loss=Margin())
    for eps in torch.cat([distance * 0.999, distance * 1.001]):
        assert torch.equal(fooled(attack, net, x, y, norm, eps), distance < eps)


@NORMS
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_nothing_falls_short_of_its_distance(attack, norm, linear):
    net = linear(torch.randn(7, 6, generator=generator(2)), torch.randn(7, generator=generator(3)))
    x = inner_images(32)
    y = net(x).argmax(dim=1)
    distance = distances(norm, net, x, y)
    assert fooled(attack, net, x, y, norm, 0.3).any()
    for eps in (0.01, 0.05, 0.1, 0.2, 0.3):
        assert not (fooled(attack, net, x, y, norm, eps) & (distance > eps * 1.001)).any()


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_a_confident_network_falls_beyond_its_l2_distance(attack, linear):
    # logits +-72 (x_0 - 1/2): 57.6 apart at a distance of 0.4, where the slope of cross-entropy is 1e-23
    net = linear(72 * torch.eye(6)[0] * torch.tensor([[1.0], [-1.0]]), torch.tensor([-36.0, 36.0]))
    x, y = torch.full((1, *SHAPE), 0.9), torch.tensor([0])
    assert not fooled(attack, net, x, y, "l2", 0.399).any()
    assert fooled(attack, net, x, y, "l2", 0.5).all()


@pytest.mark.parametrize("loss", [CrossEntropy(), Margin()], ids=repr)
@pytest.mark.parametrize("start", [Clean(), Uniform()], ids=repr)
def test_the_final_iterate_is_the_worst_point_of_l2_ball_and_box(start, loss, two_classes):
    x = torch.rand(4, *SHAPE, generator=generator(4)).mul(2).sub(0.5).clamp(0, 1)
    y = torch.tensor([0, 1, 0, 1])
    weight = two_classes[1].weight.detach().double().numpy()
    attack = PGD(steps=60, rel_step_size=0.25, start=start, loss=loss)
    x_adv = attack(two_classes, x, y, ThreatModel("l2", 0.4)).flatten(1).double().numpy()
    clean = x.flatten(1).double().numpy()
    assert ((x_adv == 0) | (x_adv == 1)).any(axis=1).sum() >= 3  # the box is in the way
    for i, label in enumerate(y):
        uphill = weight[1 - label] - weight[label]
        best = optimize.minimize(
            lambda p, c=uphill: -c @ p,
            clean[i],
            jac=lambda p, c=uphill: -c,
            bounds=[(0, 1)] * 6,
            constraints={"type": "ineq", "fun": lambda p, c=clean[i]: 0.4**2 - ((p - c) ** 2).sum()},
            method="SLSQP",
            options={"ftol": 1e-12},
        )
        assert best.success
        assert uphill @ x_adv[i] == pytest.approx(-best.fun, abs=1e-6)


@pytest.mark.parametrize("loss", [CrossEntropy(), Margin()], ids=repr)
@pytest.mark.parametrize("start", [Clean(), Uniform(), Gaussian(rel_std=0.25), Gaussian(std=0.001)], ids=repr)
def test_the_final_iterate_is_the_worst_point_of_linf_ball_and_box(loss, start, two_classes):
    # some of these images are at the box, where the ball is cut
    x = torch.rand(8, *SHAPE, generator=generator(4)).mul(1.4).sub(0.2).clamp(0, 1)
    y = torch.tensor([0, 1] * 4)
    weight = two_classes[1].weight.detach().double().numpy()
    uphill = np.sign(weight[1 - y] - weight[y]).reshape(8, *SHAPE)
    expected = np.clip(x.double().numpy() + 0.2 * uphill, 0, 1)
    x_adv = PGD(steps=20, rel_step_size=0.1, start=start, loss=loss)(two_classes, x, y, ThreatModel("linf", 0.2))
    np.testing.assert_allclose(x_adv.double().numpy(), expected, rtol=0, atol=2.0**-23)


@pytest.mark.parametrize(("steps", "moved"), [(1, 0.1), (5, 0.5), (10, 1.0), (15, 1.0)])
def test_a_step_is_a_fraction_of_eps_and_the_ball_ends_the_walk(steps, moved, two_classes):
    x = inner_images(4)
    attack = PGD(steps=steps, rel_step_size=0.1, start=Clean())
    x_adv = attack(two_classes, x, torch.zeros(4, dtype=torch.int64), ThreatModel("linf", 0.2))
    np.testing.assert_allclose((x_adv - x).abs(), moved * 0.2, rtol=0, atol=1e-6)


@NORMS
@pytest.mark.parametrize("start", [Uniform(), Bernoulli(), Gaussian(std=1.0)], ids=repr)
def test_the_network_sees_no_iterate_outside_ball_and_box(start, norm, two_classes):
    seen = []
    two_classes.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach().clone()))
    x = torch.rand(8, *SHAPE, generator=generator(5))
    PGD(steps=20, rel_step_size=0.25, start=start)(two_classes, x, torch.zeros(8).long(), ThreatModel(norm, 0.2))
    assert len(seen) == 20
    for iterate in seen:
        offset = (iterate.double() - x.double()).flatten(1)
        assert (offset.norm(dim=1, p=torch.inf if norm == "linf" else 2) <= 0.2).all()
        assert ((iterate >= 0) & (iterate <= 1)).all()


@NORMS
@pytest.mark.parametrize("start", [Clean(), Uniform(), Gaussian(std=1.0)], ids=repr)
def test_a_ball_of_radius_zero_holds_the_image_alone(start, norm, two_classes):
    x, attack = inner_images(3), PGD(steps=3, rel_step_size=0.5, start=start)
    assert torch.equal(attack(two_classes, x, torch.zeros(3).long(), ThreatModel(norm, 0)), x)


def test_the_uniform_start_fills_the_ball():
    x = torch.full((500, *SHAPE), 0.5)
    offset = Uniform()(x, ThreatModel("linf", 0.2), randomness.example_keys(0, torch.arange(500))) - x
    assert stats.kstest(offset.flatten().numpy(), stats.uniform(-0.2, 0.4).cdf).pvalue > 1e-3


@pytest.mark.parametrize(("start", "std"), [(Gaussian(std=0.001), 0.001), (Gaussian(rel_std=0.25), 0.05)], ids=repr)
def test_the_gaussian_start_has_the_stated_deviation(start, std):
    x = torch.zeros(500, *SHAPE)
    offset = start(x, ThreatModel("linf", 0.2), randomness.example_keys(0, torch.arange(500)))
    assert stats.kstest(offset.flatten().numpy(), stats.norm(scale=std).cdf).pvalue > 1e-3


BAD_SETTINGS = {
    "steps": ([0, True, 2.0], "an integer of at least 1"),
    "rel_step_size": ([0.0, math.nan], "a finite number greater than 0"),
}


@pytest.mark.parametrize("key", BAD_SETTINGS)
def test_bad_settings_are_named(key):
    values, allowed = BAD_SETTINGS[key]
    for value in values:
        with pytest.raises(InputError, match=rf"attack\.{key} = {value}: .*{allowed}"):
            PGD(**{"steps": 20, "rel_step_size": 0.1, key: value})
