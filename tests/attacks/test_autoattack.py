import pyautoattack
import pytest
import torch
from torch import nn

from robust_arch.attacks import ThreatModel
from robust_arch.attacks.autoattack import AutoAttack
from robust_arch.errors import InputError

SEED = 5


def images(batch):
    return torch.rand(batch, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def network(seed, scale):
    """A small curved network of five classes."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 5)).eval().requires_grad_(False)
    net[1].weight.mul_(2)
    net[3].weight.mul_(scale)
    return net


@pytest.fixture(scope="module")
def saturated():
    """Logits so large that cross-entropy has no slope at some images: the second part of the suite finds those.

    Nothing is left for the slow last part.
    """
    return network(seed=3, scale=1000)


def direct(net, x, y, eps, block_size=250):
    """The library called as its authors call it, on five classes; then projected, as every result here is."""
    suite = pyautoattack.AutoAttack(net, norm="Linf", eps=float(eps), version="standard", seed=SEED)
    suite.apgd_targeted.n_target_classes = suite.fab.n_target_classes = 4
    x_adv = suite.run_standard_evaluation(x, y, batch_size=block_size)[0]
    threat = ThreatModel("linf", eps)
    return threat.region(x).project(x_adv)


def test_equals_a_direct_call_of_the_whole_suite():
    net, x = network(seed=0, scale=1), images(8)
    y = net(x).argmax(dim=1)
    y[-1] = (y[-1] + 1) % 5
    x_adv = AutoAttack()(net, x, y, ThreatModel("linf", "0.1"), seed=SEED)
    assert torch.equal(x_adv, direct(net, x, y, 0.1))
    robust = net(x_adv).argmax(dim=1) == y
    # the comparison says something only if every part of the suite had something to do
    assert 0 < robust.sum() < 7
    assert torch.equal(x_adv[robust], x[robust])
    assert torch.equal(x_adv[-1], x[-1])  # misclassified from the start


def test_equals_a_direct_call_where_a_later_part_of_the_suite_decides(saturated):
    x = images(8)
    y = saturated(x).argmax(dim=1)
    x_adv = AutoAttack()(saturated, x, y, ThreatModel("linf", "0.25"), seed=SEED)
    assert torch.equal(x_adv, direct(saturated, x, y, 0.25))
    assert (saturated(x_adv).argmax(dim=1) != y).all()


def test_each_block_equals_a_direct_call_of_its_own(saturated):
    x = images(8)
    y = saturated(x).argmax(dim=1)
    x_adv = AutoAttack(block_size=4)(saturated, x, y, ThreatModel("linf", "0.25"), seed=SEED)
    for block in (slice(0, 4), slice(4, 8)):
        assert torch.equal(x_adv[block], direct(saturated, x[block], y[block], 0.25))


def test_images_are_attacked_in_the_order_of_their_index(saturated):
    x = images(8)
    y = saturated(x).argmax(dim=1)
    attack, threat = AutoAttack(), ThreatModel("linf", "0.25")
    order = torch.tensor([3, 1, 7, 0, 2, 6, 5, 4])
    in_order = attack(saturated, x, y, threat, seed=SEED)
    assert torch.equal(attack(saturated, x[order], y[order], threat, seed=SEED, index=order), in_order[order])


def test_a_linear_network_falls_exactly_beyond_its_distance(linear):
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(4, 16, generator=generator)
    net = linear(weight, -(weight @ torch.full((16,), 0.5)))
    x = 0.3 + 0.4 * images(6)
    logits = net(x).detach()
    y = logits.argmax(dim=1)
    slopes = (weight[y][:, None] - weight[None]).abs().sum(dim=2)
    gaps = logits.gather(1, y[:, None]) - logits
    distance = (gaps / slopes).scatter(1, y[:, None], torch.inf).amin(dim=1)
    eps = distance.sort().values[2:4].mean()  # three within reach, three beyond
    assert ((distance / eps - 1).abs() > 0.02).all()
    x_adv = AutoAttack()(net, x, y, ThreatModel("linf", float(eps)))
    assert torch.equal(net(x_adv).argmax(dim=1) != y, distance < eps)


@pytest.fixture
def suites(monkeypatch):
    """The suites that were about to run; none runs."""
    seen = []

    def record(self, x, y, **settings):
        seen.append((self, settings))
        return x, y

    monkeypatch.setattr(pyautoattack.AutoAttack, "run_standard_evaluation", record)
    return seen


@pytest.mark.parametrize(("num_classes", "targets"), [(4, 3), (5, 4), (10, 9), (11, 9), (100, 9)])
def test_the_standard_suite_runs_on_at_most_nine_target_classes(num_classes, targets, linear, suites):
    net = linear(torch.zeros(num_classes, 16))
    AutoAttack(block_size=3)(net, images(5), torch.zeros(5, dtype=torch.int64), ThreatModel("linf", "8/255"), seed=0)
    for suite, settings in suites:
        assert suite.attacks_to_run == ["apgd-ce", "apgd-t", "fab-t", "square"]
        assert suite.apgd_targeted.n_target_classes == suite.fab.n_target_classes == targets
        assert (suite.norm, suite.epsilon, suite.seed) == ("Linf", 8 / 255, 0)
        assert settings["batch_size"] == 3
    assert suites


@pytest.mark.parametrize("num_classes", [2, 3])
def test_too_few_classes_for_the_loss_of_the_suite_are_named(num_classes, linear):
    net = linear(torch.zeros(num_classes, 16))
    with pytest.raises(InputError, match=rf"autoattack.* = {num_classes}: at least 4 classes"):
        AutoAttack()(net, images(2), torch.zeros(2, dtype=torch.int64), ThreatModel("linf", "8/255"))


def test_a_block_of_no_images_is_named():
    with pytest.raises(InputError, match=r"attack\.block_size = 0: .*at least 1"):
        AutoAttack(block_size=0)
