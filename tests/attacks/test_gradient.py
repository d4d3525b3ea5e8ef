"""Attacks on linear networks, whose distance to the decision boundary and worst point are known in closed form."""

import numpy as np
import pytest
import torch
from scipy import stats

from robust_arch.attacks import PGD, Clean, CrossEntropy, Gaussian, Margin, ThreatModel, Uniform
from robust_arch.common import randomness
from robust_arch.errors import InputError

SHAPE = (1, 2, 3)

FGSM = PGD(steps=1, rel_step_size=1.0, start=Clean())
PGD20 = PGD(steps=20, rel_step_size=0.1)
CW40 = PGD(steps=40, rel_step_size=0.1, loss=Margin())


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def inner_images(batch):
    """Images that stay inside the box under any eps up to 0.3."""
    return 0.3 + 0.4 * torch.rand(batch, *SHAPE, generator=generator())


def distances(net, x, y):
    """l-inf distance of each example to the nearest decision boundary of a linear network, ignoring the box."""
    weight, logits = net[1].weight.detach().double(), net.double()(x.double()).detach()
    net.float()
    gap = logits.gather(1, y[:, None]) - logits
    slope = (weight[y][:, None, :] - weight[None]).abs().sum(dim=2)
    return (gap / slope).nan_to_num(nan=torch.inf).amin(dim=1)


def fooled(attack, net, x, y, eps):
    x_adv = attack(net, x, y, ThreatModel("linf", eps))
    return net(x_adv).argmax(dim=1) != y


@pytest.fixture
def two_classes(linear):
    weight = torch.randn(2, 6, generator=generator(1))
    bias = -(weight @ torch.full((6,), 0.5))  # the boundary passes through the middle of the box
    return linear(weight, bias)


@pytest.fixture
def equal_slopes(linear):
    """Five classes of which any two have weights at the same l1 distance: the nearest boundary stays the nearest."""
    weight = torch.zeros(5, 6)
    weight[range(5), range(5)] = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0])
    return linear(weight, torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0]))


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("attack", [FGSM, PGD20, CW40], ids=["fgsm", "pgd20", "cw40"])
def test_two_classes_fall_exactly_beyond_their_distance(attack, batch, two_classes):
    x = inner_images(batch)
    y = two_classes(x).argmax(dim=1)
    distance = distances(two_classes, x, y)
    assert distance.max() < 0.29
    # within a thousandth of each example's own distance, on both sides
    for eps in torch.cat([distance * 0.999, distance * 1.001]).tolist():
        assert torch.equal(fooled(attack, two_classes, x, y, eps), distance < eps)


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize(("steps", "rel_step_size"), [(1, 1.0), (40, 0.1)])
def test_the_margin_finds_the_nearest_of_many_classes(steps, rel_step_size, batch, equal_slopes):
    x = inner_images(batch)
    y = equal_slopes(x).argmax(dim=1)
    distance = distances(equal_slopes, x, y)
    # from the image itself; a random start may first climb towards another class
    attack = PGD(steps=steps, rel_step_size=rel_step_size, start=Clean(), loss=Margin())
    for eps in torch.cat([distance * 0.999, distance * 1.001]).tolist():
        assert torch.equal(fooled(attack, equal_slopes, x, y, eps), distance < eps)


@pytest.mark.parametrize("attack", [FGSM, PGD20, CW40], ids=["fgsm", "pgd20", "cw40"])
def test_nothing_falls_short_of_its_distance(attack, linear):
    net = linear(torch.randn(7, 6, generator=generator(2)), torch.randn(7, generator=generator(3)))
    x = inner_images(32)
    y = net(x).argmax(dim=1)
    distance = distances(net, x, y)
    for eps in (0.01, 0.05, 0.1, 0.2):
        assert not (fooled(attack, net, x, y, eps) & (distance > eps * 1.001)).any()


@pytest.mark.parametrize("loss", [CrossEntropy(), Margin()], ids=repr)
@pytest.mark.parametrize("start", [Clean(), Uniform(), Gaussian(rel_std=0.25), Gaussian(std=0.001)], ids=repr)
def test_the_final_iterate_is_the_worst_point_of_ball_and_box(loss, start, two_classes):
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


@pytest.mark.parametrize("start", [Uniform(), Gaussian(std=1.0)], ids=repr)
def test_the_network_sees_no_iterate_outside_ball_and_box(start, two_classes):
    seen = []
    two_classes.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach().clone()))
    x = torch.rand(8, *SHAPE, generator=generator(5))
    attack = PGD(steps=20, rel_step_size=0.25, start=start)
    attack(two_classes, x, torch.zeros(8, dtype=torch.int64), ThreatModel("linf", 0.2))
    assert len(seen) == 20
    for iterate in seen:
        assert (iterate - x).abs().max() <= 0.2 + 1e-6
        assert ((iterate >= 0) & (iterate <= 1)).all()


@pytest.mark.parametrize("attack", [FGSM, PGD20, CW40, PGD(steps=1, rel_step_size=1, start=Gaussian(std=1))], ids=repr)
def test_a_ball_of_radius_zero_holds_the_image_alone(attack, two_classes):
    x = inner_images(3)
    x_adv = attack(two_classes, x, torch.zeros(3, dtype=torch.int64), ThreatModel("linf", 0))
    assert torch.equal(x_adv, x)


def test_the_uniform_start_fills_the_ball():
    x = torch.full((500, *SHAPE), 0.5)
    offset = Uniform()(x, ThreatModel("linf", 0.2), randomness.example_keys(0, torch.arange(500))) - x
    assert stats.kstest(offset.flatten().numpy(), stats.uniform(-0.2, 0.4).cdf).pvalue > 1e-3


@pytest.mark.parametrize(("start", "std"), [(Gaussian(std=0.001), 0.001), (Gaussian(rel_std=0.25), 0.05)], ids=repr)
def test_the_gaussian_start_has_the_stated_deviation(start, std):
    x = torch.zeros(500, *SHAPE)
    offset = start(x, ThreatModel("linf", 0.2), randomness.example_keys(0, torch.arange(500)))
    assert stats.kstest(offset.flatten().numpy(), stats.norm(scale=std).cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": 0}, r"attack\.steps = 0: .*at least 1"),
        ({"steps": True}, r"attack\.steps = True: .*integer"),
        ({"steps": 2.0}, r"attack\.steps = 2\.0: .*integer"),
        ({"rel_step_size": 0.0}, r"attack\.rel_step_size = 0\.0: a finite number greater than 0"),
        ({"rel_step_size": float("nan")}, r"attack\.rel_step_size = nan: a finite number greater than 0"),
    ],
)
def test_bad_settings_are_named(given, message):
    with pytest.raises(InputError, match=message):
        PGD(**{"steps": 20, "rel_step_size": 0.1, **given})
