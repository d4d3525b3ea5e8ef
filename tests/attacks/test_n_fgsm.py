"""N-FGSM on linear networks, where the step is known in closed form."""

import math
from fractions import Fraction

import pytest
import torch

from robust_arch.attacks import NFGSM, ThreatModel
from robust_arch.common import randomness
from robust_arch.errors import InputError

THREAT = ThreatModel("linf", "0.05")


@pytest.fixture
def setting(linear):
    """Two classes; cross-entropy of class 0 rises along the difference of the rows, (-1, 2, 0, 3)."""
    net = linear([[1.0, -1.0, 0.0, -1.0], [0.0, 1.0, 0.0, 2.0]])
    generator = torch.Generator().manual_seed(0)
    x = 0.4 + 0.2 * torch.rand(500, 1, 2, 2, generator=generator)
    return net, x, torch.zeros(500, dtype=torch.int64)


def test_the_result_is_noise_and_a_step_that_no_ball_cuts(setting):
    net, x, y = setting
    x_adv = NFGSM()(net, x, y, THREAT, seed=7)
    noise = 2 * randomness.uniform(randomness.example_keys(7, torch.arange(500)), (1, 2, 2)) - 1
    direction = torch.tensor([-1.0, 1.0, 0.0, 1.0]).view(1, 2, 2)
    torch.testing.assert_close(x_adv, x + 2 * 0.05 * noise + 0.05 * direction, rtol=0, atol=1e-6)
    # uniform in [-2 eps, 2 eps] plus eps: a quarter of those pixels lie beyond 2 eps, outside of the threat model
    beyond = ((x_adv - x).view(500, 4)[:, 1] > 2 * 0.05).float().mean()
    assert float(beyond) == pytest.approx(0.25, abs=4 * math.sqrt(0.25 * 0.75 / 500))
    assert float((x_adv - x).abs().max()) <= 3 * 0.05 + 1e-7


def test_the_box_holds(setting):
    net, x, y = setting
    x_adv = NFGSM(rel_noise=4.0)(net, x, y, ThreatModel("linf", "0.4"))
    assert 0 <= float(x_adv.min()) == 0
    assert float(x_adv.max()) == 1


def test_the_euclidean_ball(setting):
    net, x, y = setting
    x_adv = NFGSM(rel_noise=1.0, rel_step_size=2.0)(net, x, y, ThreatModel("l2", "0.01"), seed=1)
    step = 0.02 * torch.tensor([-1.0, 2.0, 0.0, 3.0]).view(1, 2, 2) / math.sqrt(14)
    noise = (x_adv - x - step).flatten(1).norm(dim=1)
    assert float(noise.max()) <= 0.01 + 1e-6
    # uniform in a ball of four dimensions: the median length is 2^(-1/4)
    assert float(noise.median()) == pytest.approx(0.01 * 2**-0.25, rel=0.03)


def test_how_far_it_reaches():
    assert NFGSM().reach == 3
    assert NFGSM(rel_noise=0.1, rel_step_size=0.2).reach == Fraction(3, 10)


@pytest.mark.parametrize("key", ["rel_noise", "rel_step_size"])
@pytest.mark.parametrize("value", [0, -1.0, math.inf, math.nan, True, "2"])
def test_bad_values_are_named(key, value):
    with pytest.raises(InputError, match=rf"attack\.{key} = "):
        NFGSM(**{key: value})
