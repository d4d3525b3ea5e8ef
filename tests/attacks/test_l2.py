"""The Euclidean ball cut with the box, against solvers that know nothing of how the projection is computed."""

import math
import random

import numpy as np
import pyautoattack
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import optimize, stats
from torch import nn

from robust_arch.attacks import PGD, Clean, CrossEntropy, Gaussian, Margin, ThreatModel, Uniform
from robust_arch.attacks.autoattack import AutoAttack
from robust_arch.common import randomness

SHAPE = (1, 2, 3)
FGSM = PGD(steps=1, rel_step_size=1.0, start=Clean())
PGD20 = PGD(steps=20, rel_step_size=0.1)
CW40 = PGD(steps=40, rel_step_size=0.1, loss=Margin())


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def column(values, dtype=torch.float64):
    """One image from a list of pixels."""
    return torch.tensor(values, dtype=dtype).view(1, -1, 1, 1)


def alternating_projections(x, eps, z, rounds=20_000):
    """Dykstra's algorithm (Boyle and Dykstra 1986): the nearest point of two convex sets from projections onto each."""
    point, ball_memory, box_memory = z.copy(), np.zeros_like(z), np.zeros_like(z)
    for _ in range(rounds):
        offset = point + ball_memory - x
        in_ball = x + offset * min(1.0, eps / max(np.linalg.norm(offset), 1e-300))
        ball_memory = point + ball_memory - in_ball
        in_box = np.clip(in_ball + box_memory, 0, 1)
        box_memory = in_ball + box_memory - in_box
        if np.abs(in_box - point).max() + np.abs(in_box - in_ball).max() < 1e-13:
            break
        point = in_box
    return point


@pytest.mark.parametrize("place", ["inside", "at a corner", "in a face"])
def test_projection_is_the_nearest_point_of_ball_and_box_together(place):
    rng = np.random.default_rng(len(place))
    for _ in range(12):
        x, z = rng.uniform(0, 1, 5), rng.uniform(-1.5, 2.5, 5)
        if place != "inside":
            fixed = slice(None) if place == "at a corner" else slice(2)
            x[fixed] = x[fixed].round()
        eps = rng.uniform(0.1, 0.9)
        found = ThreatModel("l2", float(eps)).region(column(x)).project(column(z)).flatten().numpy()
        np.testing.assert_allclose(found, alternating_projections(x, float(eps), z), rtol=0, atol=1e-9)


def test_projection_by_hand_goes_on_where_a_pixel_has_met_the_box():
    # the first pixel can move by 0.1; the second takes what the radius leaves, sqrt(0.25 - 0.01)
    found = ThreatModel("l2", 0.5).region(column([0.9, 0.5])).project(column([2.0, 2.0]))
    np.testing.assert_allclose(found.flatten(), [1.0, 0.5 + math.sqrt(0.24)], rtol=0, atol=1e-11)


def test_projection_treats_each_example_by_itself():
    x, z = torch.rand(6, *SHAPE, generator=generator(0)), 3 * torch.randn(6, *SHAPE, generator=generator(1))
    z[2] = x[2]  # one that has nothing to do
    threat = ThreatModel("l2", 0.3)
    alone = [threat.region(x[i : i + 1]).project(z[i : i + 1]) for i in range(6)]
    assert torch.equal(threat.region(x).project(z), torch.cat(alone))


radii = st.one_of(st.sampled_from([0.0, 0.5, 8 / 255, 0.1, 1.0]), st.integers(1, 10_000).map(lambda n: n / 10_000))


def pixels(width):
    levels = st.sampled_from([0.0, 1.0, 0.5, float(np.float32(8) / np.float32(255))])
    # numbers so small that their square is 0 have no Euclidean length in float64
    return st.one_of(levels, st.floats(0, 1, width=width).filter(lambda v: v == 0 or v > 1e-30))


def pairs(width):
    """Pixels of an image, each with where it would go; -3 and 4 are further than any step of an attack."""
    candidates = st.one_of(pixels(width), st.sampled_from([-3.0, -0.5, 0.25, 1.5, 4.0]))
    return st.lists(st.tuples(pixels(width), candidates), min_size=1, max_size=6)


typed_pairs = st.one_of(
    st.tuples(st.just(torch.float32), pairs(32)),
    st.tuples(st.just(torch.float64), pairs(64)),
)


def projected(eps, dtype, given_pairs):
    x, z = (column(values, dtype) for values in zip(*given_pairs, strict=True))
    return x, z, ThreatModel("l2", eps).region(x).project(z)


def length(x, point):
    """Correct to the last bit or nearly so, and another implementation than torch's."""
    return math.dist(x.flatten().tolist(), point.flatten().tolist())


@given(radii, typed_pairs)
@example(0.5, (torch.float64, [(0.1, 0.7), (0.3, -0.5), (0.9, 4.0)]))
def test_no_projection_leaves_the_ball_or_the_box(eps, case):
    x, _, found = projected(eps, *case)
    assert length(x, found) <= eps
    assert ((found >= 0) & (found <= 1)).all()
    assert found.dtype == x.dtype


@given(radii, pairs(32))
@example(0.5, [(0.5, 1.0)])
def test_projection_loses_no_more_than_rounding(eps, given_pairs):
    x, z, found = projected(eps, torch.float32, given_pairs)
    reachable = length(x, z.double().clamp(0, 1))
    # pixels up to 1 are at most 2^-24 apart, and there are at most six of them
    assert length(x, found) >= min(eps, reachable) - math.sqrt(6) * 2.0**-23


@given(radii, typed_pairs)
@example(1.0, (torch.float32, [(0.5, 1e-20)]))
@example(1.0, (torch.float64, [(0.7, 0.1)]))
def test_a_point_of_the_region_is_returned_as_it_is(eps, case):
    x, z, found = projected(eps, *case)
    region, candidate = ThreatModel("l2", eps).region(x), z.clamp(0, 1)
    assert torch.equal(region.project(found), found)
    if length(x, candidate) < eps * (1 - 1e-12):
        assert torch.equal(region.project(candidate), candidate)


@pytest.mark.parametrize("start", [Clean(), Uniform(), Gaussian(std=1.0)], ids=repr)
def test_a_ball_of_radius_zero_holds_the_image_alone(start, linear):
    x = torch.rand(3, *SHAPE, generator=generator())
    net = linear(torch.randn(3, 6, generator=generator(1)))
    attack = PGD(steps=3, rel_step_size=0.5, start=start)
    assert torch.equal(attack(net, x, torch.zeros(3, dtype=torch.int64), ThreatModel("l2", 0)), x)


@pytest.mark.parametrize("scale", [1e-30, 1e-24, 1e-20, 1.0, 1e20, 1e37])
def test_steepest_direction_has_length_one_whatever_the_gradient_s(scale):
    # float32 squares are 0 below 1e-23 and infinite above 1e19; confident networks have the former
    gradient = torch.tensor([[3.0, -4.0], [0.0, -2.0]]).view(2, 1, 1, 2) * scale
    direction = ThreatModel("l2", 0.5).steepest(gradient)
    np.testing.assert_allclose(direction.flatten(1), [[0.6, -0.8], [0.0, -1.0]], rtol=1e-6)


def test_without_a_gradient_there_is_no_direction():
    gradient = torch.tensor([[0.0, 0.0], [0.0, 3.0]]).view(2, 1, 1, 2)
    assert ThreatModel("l2", 0.5).steepest(gradient).flatten().tolist() == [0.0, 0.0, 0.0, 1.0]


def test_distance_is_the_length_of_each_change():
    x = torch.tensor([[0.5, 0.5], [0.25, 1.0]]).view(2, 1, 1, 2)
    x_adv = x + torch.tensor([[0.375, -0.5], [0.0, 0.0]]).view(2, 1, 1, 2)
    assert ThreatModel("l2", 0.2).distance(x, x_adv).tolist() == [0.625, 0.0]


@pytest.mark.parametrize("dimensions", [1, 2, 5])
def test_random_offsets_are_uniform_in_the_ball(dimensions):
    count, eps = 4000, 0.5
    keys = randomness.example_keys(3, torch.arange(count))
    offset = ThreatModel("l2", eps).random_offset(keys, (dimensions, 1, 1)).flatten(1).double().numpy()
    lengths = np.linalg.norm(offset, axis=1)
    # a ball of radius r has the share (r / eps)^d of the volume
    share = (lengths / eps) ** dimensions
    assert share.max() <= 1 + 1e-5
    assert stats.kstest(share, stats.uniform.cdf).pvalue > 1e-3
    # mean 0 and covariance eps^2 / (d + 2) times the identity, within five standard errors
    assert np.abs(offset.mean(axis=0)).max() < 5 * eps / math.sqrt((dimensions + 2) * count)
    covariance = np.cov(offset.T).reshape(dimensions, dimensions)
    np.testing.assert_allclose(
        covariance, np.eye(dimensions) * eps**2 / (dimensions + 2), rtol=0, atol=5 * eps**2 / math.sqrt(count) / 2
    )
    # long and short offsets point to the same sides
    direction = offset / lengths[:, None]
    assert stats.spearmanr(lengths, direction[:, 0]).pvalue > 1e-3


def test_a_plane_s_directions_are_uniform_on_the_circle():
    keys = randomness.example_keys(4, torch.arange(4000))
    offset = ThreatModel("l2", 0.5).random_offset(keys, (2, 1, 1)).flatten(1).double().numpy()
    turns = np.arctan2(offset[:, 1], offset[:, 0]) / (2 * np.pi) + 0.5
    assert stats.kstest(turns, stats.uniform.cdf).pvalue > 1e-3


def test_the_start_of_an_example_follows_from_seed_and_index_alone(linear):
    flat = linear(torch.zeros(3, 6))  # without slope the attack stays where it starts
    x, y = torch.full((5, *SHAPE), 0.5), torch.zeros(5, dtype=torch.int64)
    index, threat = torch.tensor([40, 7, 0, 1000, 3]), ThreatModel("l2", 0.3)
    starts = PGD20(flat, x, y, threat, seed=3, index=index)
    order = torch.tensor([3, 0])
    assert torch.equal(PGD20(flat, x[order], y[order], threat, seed=3, index=index[order]), starts[order])
    other = PGD20(flat, x, y, threat, seed=4, index=index)
    assert len(torch.cat([starts, other]).unique(dim=0)) == 10


def distances(net, x, y):
    """Euclidean distance of each example to the nearest boundary of a linear network, ignoring the box."""
    weight, bias = (p.detach().double().numpy() for p in net[1].parameters())
    y = y.numpy()
    logits = x.flatten(1).double().numpy() @ weight.T + bias
    gap = logits[np.arange(len(y)), y][:, None] - logits
    slope = np.linalg.norm(weight[y][:, None] - weight[None], axis=2)
    slope[np.arange(len(y)), y] = np.nan
    return torch.from_numpy(np.nanmin(gap / slope, axis=1))


def fooled(attack, net, x, y, eps):
    return net(attack(net, x, y, ThreatModel("l2", float(eps)))).argmax(dim=1) != y


def inner_images(batch):
    """Images that stay inside the box under any eps up to 0.3."""
    return 0.3 + 0.4 * torch.rand(batch, *SHAPE, generator=generator())


@pytest.fixture
def two_classes(linear):
    weight = torch.randn(2, 6, generator=generator(1))
    return linear(weight, -(weight @ torch.full((6,), 0.5)))


# From anywhere in the ball, `walk` = steps * rel_step_size radii along u end at least as close to u as the point
# x0 + walk eps u does: within the angle whose sine is 1 / walk. So a random start costs at most this factor.
@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize(
    ("attack", "factor"),
    [(FGSM, 1.0), (PGD20, 1 / math.sqrt(1 - 1 / 2**2)), (CW40, 1 / math.sqrt(1 - 1 / 4**2))],
    ids=["fgsm", "pgd20", "cw40"],
)
def test_two_classes_fall_beyond_their_distance(attack, factor, batch, two_classes):
    x = inner_images(batch)
    y = two_classes(x).argmax(dim=1)
    distance = distances(two_classes, x, y)
    assert distance.max() * 1.001 * factor < 0.3
    for eps in torch.cat([distance * 0.999, distance * 1.001 * factor]):
        result = fooled(attack, two_classes, x, y, eps)
        assert not result[distance > eps].any()
        assert result[distance * factor < eps].all()


@pytest.mark.parametrize("attack", [FGSM, PGD20, CW40], ids=["fgsm", "pgd20", "cw40"])
def test_a_network_that_is_sure_of_itself_falls_beyond_its_distance(attack, linear):
    # logits +-72 (x_0 - 1/2): 57.6 apart at a distance of 0.4, where the slope of cross-entropy is 1e-23
    net = linear(72 * torch.eye(6)[0] * torch.tensor([[1.0], [-1.0]]), torch.tensor([-36.0, 36.0]))
    x, y = torch.full((1, *SHAPE), 0.9), torch.tensor([0])
    assert not fooled(attack, net, x, y, 0.399).any()
    assert fooled(attack, net, x, y, 0.5).all()


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize(("steps", "rel_step_size"), [(1, 1.0), (40, 0.1)])
def test_the_margin_finds_the_nearest_of_many_classes(steps, rel_step_size, batch, linear):
    # any two rows are sqrt(2) apart and a step towards one class moves no third: the nearest stays the nearest
    net = linear(torch.eye(5, 6), torch.tensor([0.05, 0.0, -0.05, 0.1, 0.0]))
    x = inner_images(batch)
    y = net(x).argmax(dim=1)
    distance = distances(net, x, y)
    assert distance.max() < 0.29
    attack = PGD(steps=steps, rel_step_size=rel_step_size, start=Clean(), loss=Margin())
    for eps in torch.cat([distance * 0.999, distance * 1.001]):
        assert torch.equal(fooled(attack, net, x, y, eps), distance < eps)


@pytest.mark.parametrize("attack", [FGSM, PGD20, CW40], ids=["fgsm", "pgd20", "cw40"])
def test_nothing_falls_short_of_its_distance(attack, linear):
    net = linear(torch.randn(7, 6, generator=generator(2)), torch.randn(7, generator=generator(3)))
    x = inner_images(32)
    y = net(x).argmax(dim=1)
    distance = distances(net, x, y)
    assert fooled(attack, net, x, y, 0.3).any()
    for eps in (0.05, 0.1, 0.2, 0.3):
        beaten = fooled(attack, net, x, y, eps)
        assert not (beaten & (distance > eps * 1.001)).any()


@pytest.mark.parametrize("loss", [CrossEntropy(), Margin()], ids=repr)
@pytest.mark.parametrize("start", [Clean(), Uniform()], ids=repr)
def test_the_final_iterate_is_the_worst_point_of_ball_and_box(start, loss, two_classes):
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


@pytest.mark.parametrize("start", [Uniform(), Gaussian(std=1.0)], ids=repr)
def test_the_network_sees_no_iterate_outside_ball_and_box(start, two_classes):
    seen = []
    two_classes.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach().clone()))
    x = torch.rand(8, *SHAPE, generator=generator(5))
    PGD(steps=5, rel_step_size=0.5, start=start)(two_classes, x, torch.zeros(8).long(), ThreatModel("l2", 0.3))
    assert len(seen) == 5
    for iterate in seen:
        assert ((iterate.double() - x.double()).flatten(1).norm(dim=1) <= 0.3).all()
        assert ((iterate >= 0) & (iterate <= 1)).all()


@pytest.mark.parametrize("attack", [FGSM, PGD20, CW40], ids=["fgsm", "pgd20", "cw40"])
def test_the_promises_of_an_attack_hold_in_this_norm(attack):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.5), nn.Flatten(), nn.Linear(6, 3))
    net[1].eval()
    net[3].bias.requires_grad_(False)
    x, y = torch.rand(4, *SHAPE, generator=generator()), torch.tensor([0, 1, 2, 0])

    def state():
        modes = [module.training for module in net.modules()]
        frozen = [(p.requires_grad, p.grad is None) for p in net.parameters()]
        values = [value.numpy().tobytes() for value in net.state_dict().values()]
        return modes, frozen, values, torch.get_rng_state().tolist(), random.getstate(), x.tolist()

    before = state()
    with torch.no_grad():
        x_adv = attack(net, x, y, ThreatModel("l2", 0.3))
    assert state() == before
    assert not torch.equal(x_adv, x)
    assert not x_adv.requires_grad
    assert ((x_adv.double() - x.double()).flatten(1).norm(dim=1) <= 0.3).all()
    assert ((x_adv >= 0) & (x_adv <= 1)).all()


@pytest.fixture
def short_square(monkeypatch):
    """The last part of the suite with 200 queries instead of 5,000, whoever calls it: seconds saved."""
    square = pyautoattack.autoattack.SquareAttack
    whole = square.perturb

    def perturb(self, *args, **given):
        self.n_queries = 200
        return whole(self, *args, **given)

    monkeypatch.setattr(square, "perturb", perturb)


def test_autoattack_equals_a_direct_call_of_the_library(short_square):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(25, 12), nn.Tanh(), nn.Linear(12, 5)).eval().requires_grad_(False)
    net[1].weight.mul_(2)
    x, threat = torch.rand(4, 1, 5, 5, generator=generator()), ThreatModel("l2", "0.1")
    y = net(x).argmax(dim=1)
    suite = pyautoattack.AutoAttack(net, norm="L2", eps=0.1, version="standard", seed=5)
    suite.apgd_targeted.n_target_classes = suite.fab.n_target_classes = 4
    expected = threat.region(x).project(suite.run_standard_evaluation(x, y, batch_size=250)[0])
    x_adv = AutoAttack()(net, x, y, threat, seed=5)
    assert torch.equal(x_adv, expected)
    # every part of the suite had something to do, and some of it succeeded
    assert 0 < (net(x_adv).argmax(dim=1) == y).sum() < 4
    assert ((x_adv.double() - x.double()).flatten(1).norm(dim=1) <= 0.1).all()
