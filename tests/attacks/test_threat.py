import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from robust_arch.attacks import ThreatModel
from robust_arch.attacks.threat import parse_eps
from robust_arch.errors import InputError

EPS = [Fraction(8, 255), Fraction(16, 255), Fraction(4, 255), Fraction(1, 5), Fraction(31, 1000), Fraction(0)]

radii = st.one_of(st.sampled_from(EPS), st.fractions(0, 1, max_denominator=10_000))
float32_pixels = st.one_of(
    st.floats(0, 1, width=32),
    st.integers(0, 255).map(lambda level: float(np.float32(level) / np.float32(255))),
    st.integers(0, 16).map(lambda level: level / 16),
)


def images(values, dtype=torch.float32):
    return torch.tensor(values, dtype=dtype).view(len(values), 1, 1, 1)


RADII = [
    ("8/255", Fraction(8, 255), "8/255"),
    (" 8 / 255 ", Fraction(8, 255), "8/255"),
    (8 / 255, Fraction(8, 255), "8/255"),
    (1 / 255, Fraction(1, 255), "1/255"),
    ("16/510", Fraction(8, 255), "8/255"),
    (Fraction(16, 255), Fraction(16, 255), "16/255"),
    (0.2, Fraction(1, 5), "0.2"),
    ("51/255", Fraction(1, 5), "0.2"),
    (0.031, Fraction(31, 1000), "0.031"),
    ("1e-3", Fraction(1, 1000), "0.001"),
    ("1/3", Fraction(1, 3), "85/255"),
    ("1/7", Fraction(1, 7), "1/7"),
    (0, Fraction(0), "0"),
    (1, Fraction(1), "1"),
]


@pytest.mark.parametrize(("given", "exact", "label"), RADII, ids=repr)
def test_radii_are_exact_and_have_a_label(given, exact, label):
    assert parse_eps(given) == exact
    assert str(ThreatModel("linf", given)) == f"linf-{label}"


JUNK = ["8/0", "eight", "", "8//255", "nan", "inf", "1e999999999", "1e400", "9" * 5000, math.nan, math.inf, None, [8]]


@pytest.mark.parametrize("junk", [*JUNK, True], ids=lambda junk: repr(junk)[:20])
def test_junk_is_not_a_radius(junk):
    with pytest.raises(
        InputError, match=r"threat\.eps = .*: .*a number or a fraction like 8/255, at least 0"
    ) as caught:
        ThreatModel("linf", junk)
    assert repr(junk) in str(caught.value)


@pytest.mark.parametrize("negative", ["-8/255", -0.1, Fraction(-1, 255)])
def test_negative_radii_are_named(negative):
    with pytest.raises(InputError, match=r"threat\.eps = .*: .*at least 0") as caught:
        ThreatModel("linf", negative)
    assert repr(negative) in str(caught.value)


def test_an_unknown_norm_is_named_with_the_known_ones():
    with pytest.raises(InputError, match=r"threat\.norm = 'l7': .*one of .*linf"):
        ThreatModel("l7", "8/255")


@given(radii)
def test_a_label_can_be_read_back(eps):
    label = str(ThreatModel("linf", eps))
    assert ThreatModel(*label.split("-", 1)) == ThreatModel("linf", eps)


def test_threat_models_are_equal_where_norm_and_radius_are():
    assert ThreatModel("linf", "0.2") == ThreatModel("linf", Fraction(1, 5))
    assert len({ThreatModel("linf", "51/255"), ThreatModel("linf", 0.2)}) == 1
    assert ThreatModel("linf", "8/255") != ThreatModel("linf", "0.031")


@given(radii, st.lists(float32_pixels | st.floats(0, 1), min_size=1, max_size=8))
@example(Fraction(8, 255), [float(np.float32(8) / np.float32(255)), float(np.float32(9) / np.float32(255))])
@example(Fraction(1, 5), [0.21, 0.25, 0.8])
def test_no_bound_leaves_the_ball_or_the_box(eps, pixels):
    for dtype in (torch.float32, torch.float64):
        x = images(pixels, dtype)
        region = ThreatModel("linf", eps).region(x)
        for bound in (region.lower, region.upper):
            assert ((bound.double() - x.double()).abs() <= float(eps)).all()
            assert ((bound >= 0) & (bound <= 1)).all()


@given(radii, st.lists(float32_pixels, min_size=1, max_size=8))
def test_the_region_loses_no_more_than_rounding(eps, pixels):
    x = images(pixels)
    region = ThreatModel("linf", eps).region(x)
    lower, upper = region.lower, region.upper
    exact = x.double()
    # an attack must be able to reach the surface: float32 numbers up to 1 are at most 2^-24 apart, two of them
    assert (lower.double() - (exact - float(eps)).clamp(min=0) <= 2.0**-23).all()
    assert ((exact + float(eps)).clamp(max=1) - upper.double() <= 2.0**-23).all()
    assert (lower <= x).all()
    assert (upper >= x).all()


@given(st.lists(st.tuples(float32_pixels, st.floats(-2, 3, width=32)), min_size=1, max_size=8))
def test_projection_is_the_nearest_point_of_the_region(pairs):
    pixels, candidates = (np.array(column) for column in zip(*pairs, strict=True))
    x, threat = images(pixels), ThreatModel("linf", 0.2)
    projected = threat.region(x).project(images(candidates)).flatten().numpy()
    nearest = np.clip(candidates, np.maximum(pixels - 0.2, 0), np.minimum(pixels + 0.2, 1))
    np.testing.assert_allclose(projected, nearest, rtol=0, atol=2.0**-23)


def test_steepest_direction_attains_the_dual_norm():
    gradient = torch.tensor([[3.0, -0.5], [0.0, -4.0]]).view(2, 1, 1, 2)
    direction = ThreatModel("linf", 0.2).steepest(gradient)
    assert direction.abs().max() <= 1
    assert (gradient * direction).sum(dim=(1, 2, 3)).tolist() == [3.5, 4.0]


def test_distance_is_the_largest_change_of_each_example():
    x = torch.tensor([[0.5, 0.5], [0.25, 1.0]]).view(2, 1, 1, 2)
    x_adv = torch.tensor([[0.375, 0.75], [0.25, 1.0]]).view(2, 1, 1, 2)
    assert ThreatModel("linf", 0.2).distance(x, x_adv).tolist() == [0.25, 0.0]
