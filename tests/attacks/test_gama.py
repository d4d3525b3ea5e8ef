"""The guided margin attack, against a second implementation with gradients worked out by hand."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import nn

from robust_arch.attacks import PGD, Bernoulli, Clean, GuidedMargin, ThreatModel
from robust_arch.common import randomness
from robust_arch.configuration.evaluation import read_attack
from robust_arch.errors import InputError

SHAPE = (1, 2, 3)
EPS = 0.25
GAMA = PGD(steps=100, rel_step_size=2.0, drops=(60, 85), start=Bernoulli(), loss=GuidedMargin())


@pytest.fixture
def tanh():
    """W2 tanh(W1 x + b1) + b2 on four classes; the two layers' arrays, and the network, in a given precision."""

    def make(dtype):
        rng = np.random.default_rng(10)
        w1, b1, w2, b2 = 1.5 * rng.normal(size=(8, 6)), rng.normal(size=8), 0.5 * rng.normal(size=(4, 8)), np.ones(4)
        b1 -= w1 @ np.full(6, 0.5)
        net = nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)).to(dtype)
        with torch.no_grad():
            for parameter, values in zip(net.parameters(), (w1, b1, w2, b2), strict=True):
                parameter.copy_(torch.from_numpy(values))
        return [parameter.detach().numpy() for parameter in net.parameters()], net.eval()

    return make


def batch(dtype, size=8, low=0.0, high=1.0):
    """Images, labels and a random corner of the ball around each image."""
    rng = np.random.default_rng(1)
    x = torch.from_numpy(rng.uniform(low, high, (size, *SHAPE))).to(dtype)
    signs = torch.from_numpy(rng.choice([-1.0, 1.0], (size, *SHAPE))).to(dtype)
    return x, torch.from_numpy(rng.integers(0, 4, size)), x + EPS * signs


def probabilities(arrays, x):
    w1, b1, w2, b2 = arrays
    hidden = np.tanh(x @ w1.T + b1)
    return hidden, special.softmax(hidden @ w2.T + b2, axis=1)


def uphill(arrays, y, anchor, weight, point):
    """The loss's gradient at a point, and by how far the best of the wrong classes led the next."""
    w1, _, w2, _ = arrays
    rows = np.arange(len(y))
    hidden, p = probabilities(arrays, point)
    others = p.copy()
    others[rows, y] = -1
    ranked = np.sort(others, axis=1)
    slope = 2 * weight * (p - anchor)
    slope[rows, others.argmax(axis=1)] += 1
    slope[rows, y] -= 1
    by_logits = p * (slope - (p * slope).sum(axis=1, keepdims=True))
    return ((by_logits @ w2) * (1 - hidden**2)) @ w1, ranked[:, -1] - ranked[:, -2]


def by_hand(arrays, x, y, start, project, direction, anchored_at):
    """GAMA-100 as the method describes it: the iterates, and how clear the direction of each step was."""
    precise = [values.astype(np.float64) for values in arrays]
    anchor = probabilities(arrays, anchored_at)[1]
    precise_anchor = probabilities(precise, anchored_at)[1]
    iterate, weight, length = start, 50.0, 2 * EPS
    iterates, clearness = [iterate], []
    for step in range(1, 101):  # the 61st and the 86th step are the first that are shorter
        if step in (61, 86):
            length = length / 10
        gradient, lead = uphill(arrays, y, anchor, weight, iterate)
        exact, _ = uphill(precise, y, precise_anchor, weight, iterate)
        rounding = max(np.abs(gradient - exact).max(), np.finfo(x.dtype).eps)
        clearness.append(min(np.abs(exact).min(), lead.min()) / rounding)
        iterate = project(iterate + length * direction(gradient)).astype(x.dtype)
        iterates.append(iterate)
        weight = max(weight - 2, 0.0)  # 50 / 25 less each time
    return np.stack(iterates), clearness


def box_projection(x):
    return lambda point: np.clip(np.clip(point, x - EPS, x + EPS), 0, 1)


def ball_projection(x):
    """Where the box is out of reach: back along the radius."""

    def project(point):
        offset = point - x
        return x + offset * np.minimum(1, EPS / np.linalg.norm(offset, axis=1, keepdims=True))

    return project


def unit(gradient):
    return gradient / np.linalg.norm(gradient, axis=1, keepdims=True)


def flat(images):
    return images.detach().flatten(1).numpy()


@dataclasses.dataclass(frozen=True, eq=False)
class Given:
    """A start that a test has chosen."""

    point: torch.Tensor

    def __call__(self, x, threat, keys):
        return self.point


def watched(attack, net, x, y, threat, **settings):
    """What the network was asked, pass by pass, and the attack's result."""
    seen = []
    handle = net.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().clone()))
    x_adv = attack(net, x, y, threat, **settings)
    handle.remove()
    return seen, x_adv


@pytest.mark.parametrize("anchor", ["clean", "start"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)], ids=str)
def test_every_iterate_is_that_of_a_second_implementation(dtype, tolerance, anchor, tanh):
    arrays, net = tanh(dtype)
    x, y, corner = batch(dtype)
    attack = dataclasses.replace(GAMA, start=Given(corner), loss=GuidedMargin(anchor=anchor))
    seen, x_adv = watched(attack, net, x, y, ThreatModel("linf", EPS))
    project = box_projection(flat(x))
    start = project(flat(corner))
    anchored_at = flat(x) if anchor == "clean" else start
    expected, clearness = by_hand(arrays, flat(x), y.numpy(), start, project, np.sign, anchored_at)
    # rounding turns no sign and exchanges no two classes: all are clear by ten times its size
    assert min(clearness) > 10
    iterates = np.stack([flat(image) for image in [*seen[1:], x_adv]])
    np.testing.assert_allclose(iterates, expected, rtol=0, atol=tolerance)
    # the short steps had something to do: some pixels are neither at the surface of the ball nor at the box
    inside = (np.abs(expected[-1] - flat(x)) < 0.99 * EPS) & (expected[-1] > 0) & (expected[-1] < 1)
    assert inside.any()


def test_every_iterate_in_the_euclidean_ball_is_that_of_a_second_implementation(tanh):
    arrays, net = tanh(torch.float64)
    x, y, corner = batch(torch.float64, low=0.3, high=0.7)  # a ball of radius 0.25 does not reach the box
    attack = dataclasses.replace(GAMA, start=Given(corner))
    seen, x_adv = watched(attack, net, x, y, ThreatModel("l2", EPS))
    project = ball_projection(flat(x))
    expected, _ = by_hand(arrays, flat(x), y.numpy(), project(flat(corner)), project, unit, flat(x))
    # a bisection of 40 halvings against a division: 1e-12 a step, and no more where steps do not overshoot by chance
    iterates = np.stack([flat(image) for image in [*seen[1:], x_adv]])
    np.testing.assert_allclose(iterates, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({}, {0: 50.0, 1: 48.0, 12: 26.0, 24: 2.0, 25: 0.0, 26: 0.0, 99: 0.0}),
        ({"weight": 8.0, "decay_steps": 4}, {0: 8.0, 1: 6.0, 3: 2.0, 4: 0.0, 5: 0.0}),
    ],
)
def test_the_guiding_weight_falls_linearly_to_nothing(settings, steps, linear):
    net = linear(torch.zeros(3, 6))  # (1/3, 1/3, 1/3) at every anchor
    x = torch.full((1, *SHAPE), 0.5)
    loss = GuidedMargin(**settings).prepare(net, x, torch.tensor([0]), x)
    for step, weight in steps.items():
        value = loss(torch.tensor([[0.5, 0.25, 0.25]]).log(), step)
        # margin 1/4 - 1/2; distance (1/6)^2 + 2 (1/12)^2 = 1/24
        assert value.item() == pytest.approx(-0.25 + weight / 24, abs=1e-6)


def test_the_61st_and_the_86th_step_are_a_tenth_of_the_one_before(linear):
    # uphill everywhere, and steps too short to meet the ball: 60 of 0.008 eps, 25 of 0.0008 eps, 15 of 0.00008 eps
    net = linear([[1.0, -2.0, 3.0, -1.0, 0.5, -3.0], [0.0] * 6], dtype=torch.float64)
    x = torch.full((1, *SHAPE), 0.5, dtype=torch.float64)
    attack = PGD(steps=100, rel_step_size=0.008, drops=(60, 85), start=Clean(), loss=GuidedMargin(weight=0.0))
    seen, x_adv = watched(attack, net, x, torch.tensor([1]), ThreatModel("linf", EPS))
    iterates = np.stack([flat(image) for image in [*seen[1:], x_adv]])
    lengths = np.abs(np.diff(iterates, axis=0))
    by_step = {0: 8e-3, 24: 8e-3, 25: 8e-3, 59: 8e-3, 60: 8e-4, 84: 8e-4, 85: 8e-5, 99: 8e-5}
    for step, length in by_step.items():
        np.testing.assert_allclose(lengths[step], length * EPS, rtol=1e-9)


@pytest.mark.parametrize("anchor", ["clean", "start"])
def test_the_anchor_is_the_softmax_at_the_named_image(anchor, tanh):
    arrays, net = tanh(torch.float64)
    x, y, corner = batch(torch.float64)
    rng = np.random.default_rng(2)
    logits = torch.from_numpy(rng.normal(size=(8, 4)))
    value = GuidedMargin(anchor=anchor).prepare(net, x, y, corner)(logits, 5)
    p = special.softmax(logits.numpy(), axis=1)
    _, at = probabilities(arrays, flat(x if anchor == "clean" else corner))
    _, elsewhere = probabilities(arrays, flat(corner if anchor == "clean" else x))
    for i, label in enumerate(y):
        best = max(p[i, j] for j in range(4) if j != label)
        assert value[i].item() == pytest.approx(best - p[i, label] + 40 * ((p[i] - at[i]) ** 2).sum(), abs=1e-12)
        assert ((p[i] - at[i]) ** 2).sum() != pytest.approx(((p[i] - elsewhere[i]) ** 2).sum(), abs=1e-3)


@pytest.mark.parametrize(("anchor", "first"), [("clean", "image"), ("start", "projected start")])
def test_the_anchor_is_looked_at_once_before_the_first_step(anchor, first, tanh):
    _, net = tanh(torch.float64)
    x, y, _ = batch(torch.float64)
    seen, _ = watched(dataclasses.replace(GAMA, loss=GuidedMargin(anchor=anchor)), net, x, y, ThreatModel("linf", EPS))
    assert len(seen) == 101
    assert torch.equal(seen[0], {"image": x, "projected start": seen[1]}[first])
    assert not torch.equal(x, seen[1])


def test_the_guide_leads_away_from_an_image_whose_margin_is_flat():
    # p = (1/2 + c, 1/4, 1/4 - c): towards larger c the margin falls, but not as fast as the distance times 50 rises
    class Line(nn.Module):
        def forward(self, x):
            c = 0.2 * (x[:, 0, 0, 0] - 0.5)
            return torch.stack([0.5 + c, torch.full_like(c, 0.25), 0.25 - c], dim=1).log()

    x = torch.full((1, 1, 1, 1), 0.5, dtype=torch.float64)
    given = Given(x + 0.25)
    threat, y = ThreatModel("linf", 0.5), torch.tensor([0])
    guided = PGD(steps=1, rel_step_size=0.1, start=given, loss=GuidedMargin())
    plain = PGD(steps=1, rel_step_size=0.1, start=given, loss=GuidedMargin(weight=0.0))
    # at c = 0.05 the slopes by c are -1 and 50 * 4 c = 10
    assert guided(Line(), x, y, threat).item() == pytest.approx(0.80)
    assert plain(Line(), x, y, threat).item() == pytest.approx(0.70)


# ---- the start


def start_of(count, threat, seed=0, shape=(1, 8, 8)):
    x = torch.full((count, *shape), 0.5, dtype=torch.float64)
    return Bernoulli()(x, threat, randomness.example_keys(seed, torch.arange(count))) - x


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_every_pixel_starts_at_plus_or_minus_eps(norm):
    offset = start_of(100, ThreatModel(norm, EPS))
    assert torch.equal(offset.abs(), torch.full_like(offset, EPS))  # 0.5 +- 0.25 is exact


def test_signs_are_fair_and_independent():
    signs = start_of(2000, ThreatModel("linf", EPS)).sign().flatten(1).numpy()
    count = signs.size
    assert stats.binomtest(int((signs > 0).sum()), count, 0.5).pvalue > 1e-3
    # each pixel over the images, neighbours in an image, neighbours among the images: within five standard errors
    assert np.abs(signs.mean(axis=0)).max() < 5 / math.sqrt(len(signs))
    assert np.abs((signs[:, 1:] * signs[:, :-1]).mean(axis=0)).max() < 5 / math.sqrt(len(signs))
    assert abs((signs[1:] * signs[:-1]).mean()) < 5 / math.sqrt(count)


def test_the_corner_is_drawn_to_the_euclidean_ball_before_the_first_step(linear):
    # the box is out of reach, so that is eps / sqrt(6) in each of 6 pixels
    still = linear(torch.zeros(3, 6), dtype=torch.float64)
    x = torch.full((5, *SHAPE), 0.5, dtype=torch.float64)
    seen, _ = watched(GAMA, still, x, torch.zeros(5, dtype=torch.int64), ThreatModel("l2", EPS))
    np.testing.assert_allclose((seen[1] - x).abs(), EPS / math.sqrt(6), rtol=1e-10)
    assert (seen[1] > x).any()
    assert (seen[1] < x).any()


# ---- the whole attack


def test_the_named_attack_has_the_published_settings():
    attack = read_attack("gama100").attack
    assert (attack.steps, attack.rel_step_size, attack.drops, attack.restarts) == (100, 2.0, (60, 85), 1)
    assert attack.start == Bernoulli()
    assert (attack.loss.weight, attack.loss.decay_steps, attack.loss.anchor) == (50.0, 25, "clean")
    assert attack == GAMA


BAD_LOSSES = {
    "anchor": (["noise", None], "clean or start"),
    "weight": ([-1.0, float("nan")], "at least 0"),
    "decay_steps": ([0, 2.5, True], "an integer of at least 1"),
}


@pytest.mark.parametrize("key", BAD_LOSSES)
def test_bad_settings_of_the_loss_are_named(key):
    values, allowed = BAD_LOSSES[key]
    for value in values:
        with pytest.raises(InputError, match=rf"attack\.loss\.{key} = {value!r}: .*{allowed}"):
            GuidedMargin(**{key: value})


@pytest.mark.parametrize("drops", [(0,), (100,), (60, 100), (60.0,), ("60",)])
def test_drops_that_no_step_has_are_named(drops):
    with pytest.raises(InputError, match=r"attack\.drops = .*between 1 and 99"):
        PGD(steps=100, rel_step_size=2.0, drops=drops)
