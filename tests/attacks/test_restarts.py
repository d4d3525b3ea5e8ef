"""Several attempts of one attack: what is kept of them, against an explicit loop over single attempts."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from robust_arch.attacks import PGD, Bernoulli, Clean, Gaussian, GuidedMargin, Margin, ThreatModel, Uniform
from robust_arch.common import randomness
from robust_arch.configuration.evaluation import read_attack
from robust_arch.errors import InputError

PGD8 = PGD(steps=8, rel_step_size=0.25)
CW8 = PGD(steps=8, rel_step_size=0.25, loss=Margin())
GAMA12 = PGD(steps=12, rel_step_size=2.0, drops=(6, 9), start=Bernoulli(), loss=GuidedMargin(decay_steps=4))
GAUSS8 = PGD(steps=8, rel_step_size=0.25, start=Gaussian(rel_std=0.5), loss=Margin())
ATTACKS = pytest.mark.parametrize("attack", [PGD8, CW8, GAMA12, GAUSS8], ids=["pgd", "cw", "gama", "gaussian"])
LINF, L2 = ThreatModel("linf", 0.04), ThreatModel("l2", 0.07)
THREATS = pytest.mark.parametrize("threat", [LINF, L2], ids=str)


@pytest.fixture(scope="module")
def hills():
    """Logits with many local maxima, in float64 so that the order of sums in a batch decides no sign.

    Sixteen waves of random direction and phase in each of three classes.
    """

    class Waves(nn.Module):
        def __init__(self):
            super().__init__()
            generator = torch.Generator().manual_seed(3)
            self.directions = nn.Parameter(9 * torch.randn(16, 4, generator=generator, dtype=torch.float64))
            self.phases = nn.Parameter(6.3 * torch.rand(16, generator=generator, dtype=torch.float64))
            self.heights = nn.Parameter(torch.randn(3, 16, generator=generator, dtype=torch.float64))

        def forward(self, x):
            return torch.sin(x.flatten(1) @ self.directions.T + self.phases) @ self.heights.T

    return Waves().eval().requires_grad_(False)


def lot(net, size=120):
    """Images, each labelled with what the network says of it."""
    x = torch.rand(size, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x, net(x).argmax(dim=1), torch.randperm(1000, generator=torch.Generator().manual_seed(1))[:size]


def leads(net, x, y):
    """By how much the best wrong class leads: not the package's own margin."""
    logits = net(x).numpy()
    return np.array([max(np.delete(row, label)) - row[label] for row, label in zip(logits, y, strict=True)])


def single_attempts(attack, net, x, y, threat, seed, index, count):
    """Attempt r by itself: from the seed for r = 0, from derive(seed, "restart", r) after."""
    seeds = [seed, *(randomness.derive(seed, "restart", r) for r in range(1, count))]
    return [attack(net, x, y, threat, seed=s, index=index) for s in seeds]


def kept_of(net, y, attempts):
    """The first that fooled the network, else the one whose margin is largest; and its number."""
    margins = np.stack([leads(net, x_adv, y) for x_adv in attempts])
    numbers = []
    for own in margins.T:
        fooling = np.flatnonzero(own > 0)
        numbers.append(fooling[0] if len(fooling) else own.argmax())
    return torch.stack([attempts[number][i] for i, number in enumerate(numbers)]), np.array(numbers), margins


@THREATS
@ATTACKS
def test_of_several_attempts_the_first_success_is_kept_else_the_largest_margin(attack, threat, hills):
    x, y, index = lot(hills)
    attempts = single_attempts(attack, hills, x, y, threat, 7, index, 4)
    expected, numbers, margins = kept_of(hills, y, attempts)
    found = dataclasses.replace(attack, restarts=4)(hills, x, y, threat, seed=7, index=index)
    offset = (found - x).flatten(1)
    assert (offset.norm(dim=1, p=torch.inf if threat is LINF else 2) <= threat.eps).all()
    assert ((found >= 0) & (found <= 1)).all()
    # Euclidean steps carry the last bits of sums whose order follows the size of the batch
    torch.testing.assert_close(found, expected, rtol=0, atol=0 if threat.norm == "linf" else 1e-9)
    fell = (margins > 0).any(axis=0)
    # every case was there: fallen at once, fallen later, never fallen with the first best, and with a later one
    cases = {(bool(fallen), bool(number)) for fallen, number in zip(fell, numbers, strict=True)}
    assert cases == {(True, False), (True, True), (False, False), (False, True)}


@ATTACKS
def test_one_attempt_is_the_loop_without_more(attack, hills):
    x, y, index = lot(hills)
    passes = []
    handle = hills.register_forward_pre_hook(lambda module, args: passes.append(len(args[0])))
    found = dataclasses.replace(attack, restarts=1)(hills, x, y, LINF, seed=7, index=index)
    handle.remove()
    # a pass a step, and the anchor's
    assert passes == [120] * (attack.steps + (attack is GAMA12))

    region = LINF.region(x)
    point = region.project(attack.start(x, LINF, randomness.example_keys(7, index)))
    loss, length = attack.loss.prepare(hills, x, y, point), attack.rel_step_size * 0.04
    for step in range(attack.steps):
        length = length / 10 if step in attack.drops else length
        point.requires_grad_(True)
        (slope,) = torch.autograd.grad(loss(hills(point), step).sum(), point)
        point = region.project(point.detach() + length * slope.sign())
    assert torch.equal(found, point)


@THREATS
def test_another_attempt_loses_nothing(threat, hills):
    x, y, index = lot(hills)
    before, best = None, None
    for restarts in (1, 2, 4):
        found = dataclasses.replace(GAMA12, restarts=restarts)(hills, x, y, threat, seed=2, index=index)
        margin = leads(hills, found, y)
        if before is None:
            first = margin
        else:
            assert torch.equal(found[best > 0], before[best > 0])  # what fell stays as it fell
            assert (margin >= best).all()
        before, best = found, margin
    assert (first > 0).sum() < (best > 0).sum()


def test_later_attempts_see_only_the_examples_that_stand(hills):
    x, y, index = lot(hills)
    margins = np.stack([leads(hills, a, y) for a in single_attempts(CW8, hills, x, y, LINF, 7, index, 3)])
    standing = [120, *((margins[:count] <= 0).all(axis=0).sum() for count in (1, 2))]
    assert 0 < standing[2] < standing[1] < 120
    passes = []
    handle = hills.register_forward_pre_hook(lambda module, args: passes.append(len(args[0])))
    dataclasses.replace(CW8, restarts=3)(hills, x, y, LINF, seed=7, index=index)
    handle.remove()
    # eight steps and a look at the result
    assert passes == [size for size in standing for _ in range(9)]


def test_no_attempt_is_made_where_nothing_stands(linear):
    net = linear([[0.0, 0.0], [1.0, 1.0]], [0.0, 1.0])
    x, y = torch.full((5, 1, 1, 2), 0.5), torch.zeros(5, dtype=torch.int64)  # misclassified wherever one goes
    passes = []
    net.register_forward_pre_hook(lambda module, args: passes.append(len(args[0])))
    many = dataclasses.replace(PGD8, restarts=10)(net, x, y, LINF)
    assert passes == [5] * 9
    assert torch.equal(many, PGD8(net, x, y, LINF))


# ---- a landscape drawn by hand


class TwoPeaks(nn.Module):
    """One pixel; the wrong class leads by max(-0.05 - |x - 0.3|, 0.05 - |x - 0.8|): from x < 1/2 uphill ends at 0.3."""

    def forward(self, x):
        pixel = x.flatten(1)[:, 0]
        lead = torch.maximum(-0.05 - (pixel - 0.3).abs(), 0.05 - (pixel - 0.8).abs())
        return torch.stack([torch.zeros_like(lead), lead], dim=1)


@pytest.mark.parametrize("restarts", [1, 2, 4, 10])
@pytest.mark.parametrize("loss", [PGD8.loss, Margin()], ids=repr)
def test_restarts_find_the_peak_that_an_attempt_misses(loss, restarts):
    # from 0.5 with radius 0.4; steps of 0.04, so that the end lies within 0.04 of the peak, of half width 0.05
    attack = PGD(steps=20, rel_step_size=0.1, loss=loss, restarts=restarts)
    x, y = torch.full((1000, 1, 1, 1), 0.5, dtype=torch.float64), torch.zeros(1000, dtype=torch.int64)
    found = attack(TwoPeaks(), x, y, ThreatModel("linf", 0.4), seed=5).flatten().numpy()
    # the first attempts start where the documented streams say; uniform in [-1, 1) times the radius
    seeds = [5, *(randomness.derive(5, "restart", r) for r in range(1, restarts))]
    draws = [randomness.uniform(randomness.example_keys(s, torch.arange(1000)), (1,)) for s in seeds]
    right = (torch.cat(draws, dim=1) > 0.5).any(dim=1).numpy()
    np.testing.assert_allclose(found, np.where(right, 0.8, 0.3), rtol=0, atol=0.041)
    assert stats.binomtest(int(right.sum()), 1000, 1 - 0.5**restarts).pvalue > 1e-3


def test_of_failed_attempts_the_nearest_to_success_is_returned():
    # one step, too short to reach either peak: the lead reached is what the start decides
    attack = PGD(steps=1, rel_step_size=0.01, loss=Margin(), restarts=6)
    x, y = torch.full((32, 1, 1, 1), 0.3, dtype=torch.float64), torch.zeros(32, dtype=torch.int64)
    threat = ThreatModel("linf", 0.2)  # only the lower peak, at 0.3, is within reach
    found = attack(TwoPeaks(), x, y, threat, seed=5).flatten().numpy()
    one = dataclasses.replace(attack, restarts=1)
    attempts = single_attempts(one, TwoPeaks(), x, y, threat, 5, torch.arange(32), 6)
    ends = np.stack([x_adv.flatten().numpy() for x_adv in attempts])
    nearest = np.abs(ends - 0.3).argmin(axis=0)
    np.testing.assert_array_equal(found, ends[nearest, np.arange(32)])
    assert len(set(nearest)) == 6


# ---- what an example's result depends on


@ATTACKS
def test_with_restarts_a_batch_of_one_gives_what_all_at_once_give(attack, hills):
    x, y, index = lot(hills)
    attack = dataclasses.replace(attack, restarts=3)
    together = attack(hills, x, y, LINF, seed=1, index=index)
    for i in range(0, 120, 8):
        own = slice(i, i + 1)
        assert torch.equal(attack(hills, x[own], y[own], LINF, seed=1, index=index[own]), together[own])
    order = torch.randperm(120, generator=torch.Generator().manual_seed(2))[:50]
    assert torch.equal(attack(hills, x[order], y[order], LINF, seed=1, index=index[order]), together[order])


# ---- settings


def test_the_named_attack_is_fifty_steps_from_ten_starts():
    attack = read_attack("pgd50_10").attack
    assert (attack.steps, attack.rel_step_size, attack.restarts, attack.start) == (50, 0.1, 10, Uniform())
    assert attack == PGD(steps=50, rel_step_size=0.1, restarts=10)


def test_bad_numbers_of_restarts_are_named():
    for restarts in (0, True, 2.0):
        with pytest.raises(InputError, match=rf"attack\.restarts = {restarts}: .*an integer of at least 1"):
            PGD(steps=20, rel_step_size=0.1, restarts=restarts)
    with pytest.raises(InputError, match=r"attack\.restarts = 2: .*1 where every attempt starts from the clean image"):
        PGD(steps=20, rel_step_size=0.1, restarts=2, start=Clean())
    assert PGD(steps=1, rel_step_size=1.0, start=Clean(), restarts=1).restarts == 1
