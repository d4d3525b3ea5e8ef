"""The Euclidean ball cut with the box, against solvers that know nothing of how the projection is computed."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from robust_arch.attacks import ThreatModel
from robust_arch.common import randomness

SHAPE = (1, 2, 3)


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
    if dimensions == 2:
        turns = np.arctan2(offset[:, 1], offset[:, 0]) / (2 * np.pi) + 0.5
        assert stats.kstest(turns, stats.uniform.cdf).pvalue > 1e-3
