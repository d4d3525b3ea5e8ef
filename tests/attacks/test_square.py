"""The Square attack of the authors' code against direct calls of it, and against distances in closed form."""

import pytest
import torch
from pyautoattack.square import SquareAttack
from torch import nn

from robust_arch.attacks import ThreatModel
from robust_arch.attacks.square import Square
from robust_arch.configuration.evaluation import read_attack
from robust_arch.errors import InputError

SEED = 5
THREATS = {"linf": ThreatModel("linf", "0.15"), "l2": ThreatModel("l2", "0.6")}
NORMS = {"linf": "Linf", "l2": "L2"}


def images(batch, side=8):
    return torch.rand(batch, 1, side, side, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def net():
    """A small curved network of five classes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.Tanh(), nn.Linear(12, 5))
    return net.eval().requires_grad_(False)


def labels(net, x):
    """What the network says, but for the last image."""
    y = net(x).argmax(dim=1)
    y[-1] = (y[-1] + 1) % 5
    return y


def direct(net, x, y, threat, queries):
    """The library called as its authors call it; then projected, as every result here is."""
    search = SquareAttack(net, norm=NORMS[threat.norm], eps=threat.eps, n_queries=queries, seed=SEED, device="cpu")
    with torch.random.fork_rng(), torch.no_grad():
        return threat.region(x).project(search.perturb(x, y))


@pytest.mark.parametrize("threat", THREATS.values(), ids=THREATS)
def test_equals_a_direct_call(threat, net):
    x = images(12)
    y = labels(net, x)
    x_adv = Square(queries=50)(net, x, y, threat, seed=SEED)
    assert torch.equal(x_adv, direct(net, x, y, threat, 50))
    standing = net(x_adv).argmax(dim=1) == y
    # the comparison says something only if some images fall and some do not
    assert 0 < standing.sum() < 11
    assert torch.equal(x_adv[standing], x[standing])
    assert torch.equal(x_adv[-1], x[-1])  # misclassified from the start


def test_each_block_equals_a_direct_call_of_its_own_in_the_order_of_the_index(net):
    x, threat = images(8), THREATS["linf"]
    y = labels(net, x)
    x_adv = Square(queries=50, block_size=4)(net, x, y, threat, seed=SEED)
    for block in (slice(0, 4), slice(4, 8)):
        assert torch.equal(x_adv[block], direct(net, x[block], y[block], threat, 50))
    order = torch.tensor([3, 1, 7, 0, 2, 6, 5, 4])
    shuffled = Square(queries=50, block_size=4)(net, x[order], y[order], threat, seed=SEED, index=order)
    assert torch.equal(shuffled, x_adv[order])


def test_it_needs_no_gradient(net):
    class Quantised(nn.Module):
        def forward(self, x):
            assert not torch.is_grad_enabled()
            return net((x * 100).round() / 100)

    x = images(12)
    y = labels(net, x)
    x_adv = Square(queries=200)(Quantised(), x, y, ThreatModel("linf", "0.3"))
    assert (net((x_adv * 100).round() / 100).argmax(dim=1) != y).all()


def test_a_linear_network_never_falls_within_its_distance(linear):
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(2, 64, generator=generator)
    net = linear(weight, -(weight @ torch.full((64,), 0.5)))
    x = 0.3 + 0.4 * images(40)
    gap = net(x).detach().diff(dim=1)[:, 0]
    y = (gap > 0).long()
    distance = gap.abs() / (weight[1] - weight[0]).abs().sum()
    eps = float(distance.median())
    threat = ThreatModel("linf", eps)
    fallen = net(Square(queries=500)(net, x, y, threat)).argmax(dim=1) != y
    assert not fallen[distance > eps].any()
    # the search leaves one row and one column of 8 out once its squares are small
    assert fallen[distance < 0.4 * eps].all()
    assert (distance < 0.4 * eps).sum() > 5


def test_the_yaml_file_is_the_default():
    named = read_attack("square")
    assert named.attack == Square()
    assert named.attack.block_size == 250
    assert named.attack.implementation.startswith("pyautoattack ")


@pytest.mark.parametrize("key", ["queries", "block_size"])
def test_settings_that_cannot_be_are_named(key):
    for value in (0, True, 1.5):
        with pytest.raises(InputError, match=rf"attack\.{key} = .*at least 1"):
            Square(**{key: value})


def test_images_too_small_for_the_start_under_l2_are_named(linear):
    x, y = images(2, side=4), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(InputError, match=r"square = \(4, 4\): expected images of at least 5 x 5"):
        Square()(linear(torch.zeros(3, 16)), x, y, THREATS["l2"])
    assert Square(queries=5)(linear(torch.zeros(3, 16)), x, y, THREATS["linf"]).shape == x.shape
