"""AutoAttack against direct calls of the authors' code, and against distances in closed form."""

import importlib.metadata
import json
import logging
import re
import sys
import types

import pyautoattack
import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from pyautoattack.fab_base import FABAttack
from pyautoattack.square import SquareAttack
from torch import nn

from robust_arch.architectures import ArchSpec, build
from robust_arch.attacks import ThreatModel
from robust_arch.attacks.autoattack import APGDScreen, AutoAttack
from robust_arch.configuration.evaluation import read_attack
from robust_arch.data.digits import Digits
from robust_arch.engine import AttackableNetwork
from robust_arch.engine.frozen import FrozenNetwork
from robust_arch.errors import InputError

SEED = 5
BLOCKS = slice(0, 4), slice(4, 8)
THREATS = pytest.mark.parametrize("threat", [ThreatModel("linf", 0.02), ThreatModel("l2", 0.1)], ids=str)
INDEX_ORDER = torch.tensor([3, 1, 7, 0, 2, 6, 5, 4])


def images(count):
    return torch.rand(count, 1, 5, 5, generator=torch.Generator().manual_seed(0))


class Curved(nn.Module):
    """A small network of five classes; with noise, one whose logits differ from call to call."""

    def __init__(self, noise=0.0, classes=5):
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.first = nn.Parameter(3 * torch.randn(8, 25, generator=generator))
        self.second = nn.Parameter(torch.randn(classes, 8, generator=generator))
        self.noise = noise

    def forward(self, x):
        logits = torch.tanh((x.flatten(1) - 0.5) @ self.first.T) @ self.second.T
        return logits + self.noise * torch.randn_like(logits) if self.noise else logits


def lot(net, count):
    """Images with the labels that the network gives, but for the last."""
    x = images(count)
    with torch.no_grad():
        y = net(x).argmax(dim=1)
    y[-1] = (y[-1] + 1) % 3
    return x, y


def direct(net, x, y, threat, version="standard", targets=4):
    """The library as its authors call it, a suite for this call alone; then projected, as every result here is."""
    norm = {"linf": "Linf", "l2": "L2"}[threat.norm]
    suite = pyautoattack.AutoAttack(net, norm=norm, eps=threat.eps, version=version, seed=SEED)
    suite.apgd_targeted.n_target_classes = suite.fab.n_target_classes = targets
    return threat.region(x).project(suite.run_standard_evaluation(x, y, batch_size=len(x))[0])


@pytest.fixture
def brief(monkeypatch):
    """Every part of the suite at a tenth of its iterations or less, for any caller: minutes otherwise.

    Returns what was run: its name, its target or loss, and the settings by which versions differ.
    """
    seen = []

    def shorten(attack, length, short, settings):
        full = attack.perturb

        def perturb(self, *args):
            seen.append((attack.__name__, *(getattr(self, name) for name in settings)))
            long = getattr(self, length)
            setattr(self, length, short)
            try:
                return full(self, *args)
            finally:
                setattr(self, length, long)

        monkeypatch.setattr(attack, "perturb", perturb)

    shorten(APGDAttack, "n_iter", 4, ("loss", "eot_iter", "n_restarts", "n_iter", "seed"))
    shorten(APGDAttack_targeted, "n_iter", 4, ("n_target_classes", "eot_iter", "n_restarts", "n_iter", "seed"))
    shorten(FABAttack, "n_iter", 5, ("targeted", "n_target_classes", "n_restarts", "n_iter", "seed"))
    shorten(SquareAttack, "n_queries", 20, ("n_queries", "n_restarts", "seed"))
    return seen


def test_the_whole_standard_suite_equals_a_direct_call():
    net, threat = Curved().eval().requires_grad_(False), ThreatModel("linf", 0.05)
    x, y = lot(net, 4)
    x_adv = AutoAttack()(net, x, y, threat, seed=SEED)
    assert torch.equal(x_adv, direct(net, x, y, threat))
    # the comparison says something only if every part of the suite had something to do
    assert 0 < (net(x_adv).argmax(dim=1) == y).sum() < 3


STANDARD = [
    ("APGDAttack", "ce", 1, 1, 100, SEED),
    ("APGDAttack_targeted", 4, 1, 1, 100, SEED),
    ("FABAttack", True, 4, 1, 100, SEED),
    ("SquareAttack", 5000, 1, SEED),
]
PLUS = [
    ("APGDAttack", "ce", 1, 5, 100, SEED),
    ("APGDAttack", "dlr", 1, 5, 100, SEED),
    ("FABAttack", False, 4, 5, 100, SEED),
    ("SquareAttack", 5000, 1, SEED),
    ("APGDAttack_targeted", 4, 1, 1, 100, SEED),
    ("FABAttack", True, 4, 1, 100, SEED),
]


@THREATS
@pytest.mark.parametrize(("version", "parts"), [("standard", STANDARD), ("plus", PLUS)])
def test_each_of_two_blocks_equals_a_direct_call_in_the_order_of_the_index(version, parts, threat, brief):
    net = Curved().eval().requires_grad_(False)
    x, y = lot(net, 8)
    attack = AutoAttack(version=version, block_size=4)
    x_adv = attack(net, x, y, threat, seed=SEED)
    # in the second block too, where a suite used twice would run untargeted FAB once
    assert brief == 2 * parts
    for block in BLOCKS:
        assert torch.equal(x_adv[block], direct(net, x[block], y[block], threat, version))
    robust = net(x_adv).argmax(dim=1) == y
    for block in BLOCKS:  # the suite found something in each, and not everything
        assert 0 < robust[block].sum() < (y == net(x).argmax(dim=1))[block].sum()
    assert torch.equal(x_adv[robust], x[robust])
    assert torch.equal(x_adv[-1], x[-1])  # misclassified from the start
    shuffled = attack(net, x[INDEX_ORDER], y[INDEX_ORDER], threat, seed=SEED, index=INDEX_ORDER)
    assert torch.equal(shuffled, x_adv[INDEX_ORDER])


def test_equals_a_direct_call_where_a_later_part_of_the_suite_decides():
    # logits so large that cross-entropy has no slope at some images: the second part of the suite finds those
    net, threat = Curved().eval().requires_grad_(False), ThreatModel("linf", "0.25")
    net.second.mul_(1000)
    x = images(8)
    y = net(x).argmax(dim=1)
    x_adv = AutoAttack()(net, x, y, threat, seed=SEED)
    assert torch.equal(x_adv, direct(net, x, y, threat))
    assert (net(x_adv).argmax(dim=1) != y).all()


def test_a_linear_network_falls_exactly_beyond_its_distance(linear):
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(4, 16, generator=generator)
    net = linear(weight, -(weight @ torch.full((16,), 0.5)))
    x = 0.3 + 0.4 * torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    logits = net(x).detach()
    y = logits.argmax(dim=1)
    slopes = (weight[y][:, None] - weight[None]).abs().sum(dim=2)
    gaps = logits.gather(1, y[:, None]) - logits
    distance = (gaps / slopes).scatter(1, y[:, None], torch.inf).amin(dim=1)
    eps = distance.sort().values[2:4].mean()  # three within reach, three beyond
    assert ((distance / eps - 1).abs() > 0.02).all()
    x_adv = AutoAttack()(net, x, y, ThreatModel("linf", float(eps)))
    assert torch.equal(net(x_adv).argmax(dim=1) != y, distance < eps)


RAND = [("APGDAttack", "ce", 20, 1, 100, SEED), ("APGDAttack", "dlr", 20, 1, 100, SEED)]


# the library reseeds within its attacks, so chance that leaves the clean answers alone is the same in two calls
@pytest.mark.parametrize("noise", [0.0, 0.001])
@THREATS
def test_rand_equals_a_direct_call_in_each_of_two_blocks(threat, noise, brief):
    net = Curved(noise).eval().requires_grad_(False)
    x, y = lot(Curved(), 8)
    x_adv = AutoAttack(version="rand", block_size=4)(net, x, y, threat, seed=SEED)
    assert brief == 2 * RAND
    for block in BLOCKS:
        assert torch.equal(x_adv[block], direct(net, x[block], y[block], threat, "rand"))
        assert 0 < (x_adv != x)[block].flatten(1).any(dim=1).sum() < 4


def test_the_global_random_state_decides_nothing_where_a_network_answers_by_chance(brief):
    net = Curved(noise=0.3).eval().requires_grad_(False)
    x, y = lot(Curved(), 8)
    found = []
    for state in (0, 1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(state)
            found.append(AutoAttack(version="rand")(net, x, y, ThreatModel("linf", 0.05), seed=SEED))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_each_part_tells_how_many_images_it_attacks(brief, caplog):
    net, threat = Curved().eval().requires_grad_(False), ThreatModel("linf", 0.05)
    x, y = lot(net, 8)
    with caplog.at_level(logging.INFO, "robust_arch.attacks"):
        AutoAttack()(net, x, y, threat, seed=SEED)
    told = [re.fullmatch(r"([\w-]+) on the (\d) images .*correctly(, about \d+ s left for them)?", text).groups()
            for text in caplog.messages]  # fmt: skip
    assert [name for name, _, _ in told] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    suite = pyautoattack.AutoAttack(net, norm="Linf", eps=threat.eps, version="standard", seed=SEED)
    suite.apgd_targeted.n_target_classes, suite.attacks_to_run = 4, ["apgd-ce"]
    after_first = int((net(suite.run_standard_evaluation(x, y, batch_size=8)[0]).argmax(dim=1) == y).sum())
    assert [int(count) for _, count, _ in told[:2]] == [7, after_first]
    assert [bool(left) for _, _, left in told] == [False, True, True, True]


# ---- the screen: the first two attacks of the standard suite


@THREATS
def test_the_screen_breaks_what_the_first_two_attacks_of_autoattack_break(threat, brief):
    net = Curved().eval().requires_grad_(False)
    x, y = lot(net, 8)
    screened = APGDScreen(block_size=4)(net, x, y, threat, seed=SEED)
    assert brief == 2 * STANDARD[:2]
    for block in BLOCKS:
        norm = {"linf": "Linf", "l2": "L2"}[threat.norm]
        suite = pyautoattack.AutoAttack(net, norm=norm, eps=threat.eps, version="standard", seed=SEED)
        suite.apgd_targeted.n_target_classes, suite.attacks_to_run = 4, suite.attacks_to_run[:2]
        found = suite.run_standard_evaluation(x[block], y[block], batch_size=4)[0]
        assert torch.equal(screened[block], threat.region(x[block]).project(found))
    broken = net(screened).argmax(dim=1) != y
    assert 1 < broken.sum() < 8
    whole = AutoAttack(block_size=4)(net, x, y, threat, seed=SEED)
    assert torch.equal(whole[broken], screened[broken])


def test_the_screen_is_not_called_autoattack():
    named = read_attack("aa_screen")
    assert named.attack == APGDScreen(package="pyautoattack", block_size=250)
    assert not isinstance(named.attack, AutoAttack)
    assert "AutoAttack" not in json.dumps(dict(named.settings)) + repr(named.attack)


# ---- the folded network


@pytest.fixture(scope="module")
def digits_network():
    """A pre-activation network that has learnt the digits, 40 test images and their labels."""
    splits = Digits(name="digits").load()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = build(ArchSpec("wide_resnet", (1, 1, 1), (8, 12, 12)), 10, (1, 8, 8), seed=0)
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        for step in range(60):
            where = torch.arange(64 * step, 64 * (step + 1)) % len(splits.train)
            x = splits.train.to_unit(splits.train.images[where])
            nn.functional.cross_entropy(net(x + 0.1 * torch.randn_like(x)), splits.train.labels[where]).backward()
            optimizer.step()
            optimizer.zero_grad()
    test = splits.test
    return net.eval().to(memory_format=torch.channels_last), test.to_unit(test.images[:40]), test.labels[:40]


@pytest.mark.parametrize("attack", [AutoAttack(), APGDScreen()], ids=["autoattack", "aa_screen"])
def test_folded_batch_norm_changes_no_flag_of_a_trained_network(attack, digits_network, brief):
    net, x, y = digits_network
    threat = ThreatModel("linf", "0.05")
    assert isinstance(AttackableNetwork(net).attacked(x), FrozenNetwork)
    plain, folded = (attack(attacked, x, y, threat, seed=SEED) for attacked in (net, AttackableNetwork(net)))
    flags = net(plain).argmax(dim=1) == y
    assert torch.equal(net(folded).argmax(dim=1) == y, flags)
    assert 5 < flags.sum() < 35  # the comparison says something only if some fall and some do not


@pytest.mark.parametrize(
    ("family", "widths", "reach"),  # a radius at which some images fall, in units of the logits' median margin
    [("resnet", (8, 8, 8, 12), 0.2), ("vgg", (8, 8, 8, 8, 12), 0.2), ("densenet", (4, 4, 4, 4), 1.0)],
)
def test_folded_batch_norm_changes_no_flag_in_other_families(family, widths, reach, brief):
    spec = ArchSpec(family, (1,) * len(widths), widths)
    net = build(spec, 6, (3, 32, 32), seed=0)
    x = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    net(x)  # gives BatchNorm other statistics than those of its start
    net.eval().requires_grad_(False)
    top = net(x).topk(2, dim=1)
    y = top.indices[:, 0]
    threat = ThreatModel("linf", round(reach * float((top.values[:, 0] - top.values[:, 1]).median()), 4))
    assert isinstance(AttackableNetwork(net).attacked(x), FrozenNetwork)
    plain, folded = (AutoAttack()(attacked, x, y, threat, seed=SEED) for attacked in (net, AttackableNetwork(net)))
    flags = net(plain).argmax(dim=1) == y
    assert torch.equal(net(folded).argmax(dim=1) == y, flags)
    assert 1 <= flags.sum() <= 7


class Misjudged(nn.Module):
    """Its form for attacks says class 1 of every image, the network itself class 0."""

    def __init__(self):
        super().__init__()
        self.net, self.form = Constant(0), Constant(1)

    def forward(self, x):
        return self.net(x)

    def attacked(self, x):
        return self.form


class Constant(nn.Module):
    def __init__(self, winner):
        super().__init__()
        self.winner = winner

    def forward(self, x):
        return torch.eye(5)[self.winner] + 0 * x.flatten(1).sum(dim=1, keepdim=True)


def test_the_network_itself_decides_what_is_misclassified(brief):
    x = images(3)
    x_adv = AutoAttack()(Misjudged(), x, torch.tensor([0, 0, 1]), ThreatModel("linf", 0.1), seed=SEED)
    assert torch.equal(x_adv, x)
    assert [part[0] for part in brief] == [part[0] for part in STANDARD]  # no attack ended the suite


# ---- classes and settings


@pytest.mark.parametrize(("num_classes", "targets"), [(4, 3), (5, 4), (10, 9), (100, 9)])
def test_the_standard_suite_runs_on_at_most_nine_target_classes(num_classes, targets, linear, monkeypatch):
    suites = []

    def record(self, x, y, **settings):
        suites.append((self, settings))
        return x, y

    monkeypatch.setattr(pyautoattack.AutoAttack, "run_standard_evaluation", record)
    net = linear(torch.zeros(num_classes, 25))
    AutoAttack(block_size=3)(net, images(5), torch.zeros(5).long(), ThreatModel("linf", "8/255"), seed=0)
    assert len(suites) == 2
    for suite, settings in suites:
        assert suite.attacks_to_run == ["apgd-ce", "apgd-t", "fab-t", "square"]
        assert suite.apgd_targeted.n_target_classes == suite.fab.n_target_classes == targets
        assert (suite.norm, suite.epsilon, suite.seed) == ("Linf", 8 / 255, 0)
        assert settings["batch_size"] == 3


@pytest.mark.parametrize(("version", "needed"), [("standard", 4), ("plus", 4), ("rand", 3)])
def test_each_version_says_how_many_classes_it_needs(version, needed, linear):
    attack = AutoAttack(version=version)
    assert attack.min_classes == needed
    for classes in range(2, needed):
        net, x, y = linear(torch.zeros(classes, 25)), images(2), torch.zeros(2).long()
        with pytest.raises(InputError, match=rf"net = '{classes} classes': .*at least {needed} classes.*AutoAttack"):
            attack(net, x, y, ThreatModel("linf", "8/255"))


def test_rand_runs_on_three_classes(brief):
    net = Curved(classes=3).eval().requires_grad_(False)
    x, y = lot(net, 4)
    threat = ThreatModel("linf", 0.15)
    x_adv = AutoAttack(version="rand")(net, x, y, threat, seed=SEED)
    assert torch.equal(x_adv, direct(net, x, y, threat, "rand", targets=2))
    assert not torch.equal(x_adv, x)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"version": "Plus"}, r"attack\.version = 'Plus': .*standard, plus or rand"),
        ({"package": "torchattacks"}, r"attack\.package = 'torchattacks': .*pyautoattack or autoattack"),
        ({"block_size": 0}, r"attack\.block_size = 0: .*at least 1"),
    ],
)
def test_settings_that_cannot_be_are_named(given, message):
    with pytest.raises(InputError, match=message):
        AutoAttack(**given)


@pytest.mark.parametrize(
    ("name", "version"), [("autoattack", "standard"), ("autoattack_plus", "plus"), ("autoattack_rand", "rand")]
)
def test_named_attacks_are_the_versions_in_blocks_of_250(name, version):
    attack = read_attack(name).attack
    assert attack == AutoAttack(version=version, package="pyautoattack", block_size=250)


# ---- the library's warnings


@pytest.fixture
def misclassified(linear):
    """A network whose images are all misclassified: the library makes its checks and is done."""
    return linear(torch.zeros(5, 25), torch.tensor([3.0, 0.0, 0.0, 0.0, 0.0])), images(4), torch.ones(4).long()


@pytest.mark.parametrize("version", ["standard", "plus", "rand"])
def test_what_the_library_warns_of_reaches_the_log(version, misclassified, caplog):
    net, x, y = misclassified
    with caplog.at_level(logging.WARNING):
        AutoAttack(version=version)(net, x, y, ThreatModel("linf", 0.1))
        assert not caplog.records
        AutoAttack(version=version)(nn.Sequential(net, nn.Softmax(dim=1)), x, y, ThreatModel("linf", 0.1))
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("auto-attack", logging.WARNING)
    assert "probability distribution" in record.getMessage()


def test_a_network_that_answers_by_chance_is_warned_of(caplog):
    net = Curved(noise=0.05).eval()
    x, y = images(4), Curved()(images(4)).argmin(dim=1)
    with caplog.at_level(logging.WARNING):
        AutoAttack(version="rand")(net, x, y, ThreatModel("linf", 0.001))
        assert not caplog.records
        AutoAttack()(net, x, y, ThreatModel("linf", 0.001))
    assert any("randomized defense" in record.getMessage() for record in caplog.records)


# ---- the authors' module


def test_the_implementation_is_the_distribution_with_its_version():
    assert AutoAttack().implementation == f"pyautoattack {importlib.metadata.version('pyautoattack')}"


@pytest.fixture
def versions(monkeypatch):
    """Installed distributions, as the adapter sees them."""
    installed = {"pyautoattack": "0.2.0"}

    def version(name):
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr("robust_arch.attacks.autoattack.version", version)
    return installed


def test_a_package_that_is_not_installed_is_named(versions):
    with pytest.raises(InputError, match=r"attack\.package = 'autoattack': .*not"):
        AutoAttack(package="autoattack")
    assert AutoAttack().implementation == "pyautoattack 0.2.0"


class Suite:
    """The authors' class by its signatures; the attack adds eps to what is not misclassified yet."""

    made = ()

    def __init__(
        self, model, norm="Linf", eps=0.3, seed=None, verbose=True, attacks_to_run=[], version="standard",  # noqa: B006
        is_tf_model=False, device="cuda", log_path=None,
    ):  # fmt: skip
        self.model, self.norm, self.epsilon, self.seed, self.verbose = model, norm, eps, seed, verbose
        self.version, self.is_tf_model, self.device = version, is_tf_model, device
        assert attacks_to_run == []
        self.logger = types.SimpleNamespace(log=print)
        self.attacks_to_run = ["apgd-ce", "apgd-t", "fab-t", "square"]
        self.apgd = types.SimpleNamespace(logger=self.logger, perturb=None)
        self.apgd_targeted = types.SimpleNamespace(logger=self.logger, n_target_classes=9, perturb=None)
        self.fab = types.SimpleNamespace(n_target_classes=9, perturb=None)
        self.square = types.SimpleNamespace(perturb=None)
        self.blocks = []
        Suite.made = (*Suite.made, self)

    def run_standard_evaluation(self, x_orig, y_orig, bs=250, return_labels=False, state_path=None):
        self.blocks.append((x_orig.clone(), y_orig.clone(), bs))
        if self.verbose:
            self.logger.log(f"using {self.version} version, initial accuracy: 100.00%")
        self.logger.log("Warning: it seems to be a dynamic defense!")
        self.apgd.logger.log("Warning: there are 2 points with zero gradient!")
        self.apgd_targeted.logger.log("Warning: there are 3 points with zero gradient!")
        self.logger.log("a line of no concern")
        with torch.no_grad():
            correct = (self.model(x_orig).argmax(dim=1) == y_orig)[:, None, None, None]
        x_adv = torch.where(correct, x_orig + self.epsilon, x_orig)
        return (x_adv, y_orig) if return_labels else x_adv


@pytest.fixture
def authors(monkeypatch, versions):
    """The authors' module, as if installed; the suites that were made."""
    module = types.ModuleType("autoattack")
    module.AutoAttack = Suite
    versions["autoattack"] = "0.1"
    monkeypatch.setitem(sys.modules, "autoattack", module)
    monkeypatch.setattr(Suite, "made", ())
    return Suite


@pytest.mark.parametrize(
    ("version", "threat", "theirs"),
    [("standard", ThreatModel("linf", 0.02), "Linf"), ("plus", ThreatModel("l2", 0.1), "L2"),
     ("rand", ThreatModel("linf", 0.02), "Linf")],
)  # fmt: skip
def test_the_authors_package_is_called_by_its_own_signature(version, threat, theirs, authors, linear):
    net = linear(torch.zeros(5, 25), torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0]))
    x, y = 0.5 * images(4), torch.tensor([0, 1, 0, 0])
    attack = AutoAttack(package="autoattack", version=version)
    x_adv = attack(net, x, y, threat, seed=SEED)
    (suite,) = authors.made
    assert (suite.norm, suite.epsilon, suite.seed, suite.version) == (theirs, threat.eps, SEED, version)
    assert (suite.verbose, suite.is_tf_model, suite.device) == (False, False, x.device)
    assert suite.apgd_targeted.n_target_classes == suite.fab.n_target_classes == 4
    ((seen_x, seen_y, bs),) = suite.blocks
    assert (seen_x.tolist(), seen_y.tolist(), bs) == (x.tolist(), y.tolist(), 250)
    expected = x + threat.eps * torch.tensor([1.0, 0.0, 1.0, 1.0])[:, None, None, None]
    assert torch.equal(x_adv, threat.region(x).project(expected))
    assert attack.implementation == "autoattack 0.1"


def test_the_authors_warnings_are_logged_and_the_rest_is_not_printed(authors, linear, caplog, capsys):
    net, x = linear(torch.zeros(5, 25)), images(4)
    with caplog.at_level(logging.DEBUG):
        AutoAttack(package="autoattack")(net, x, torch.zeros(4).long(), ThreatModel("linf", 0.1))
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, "it seems to be a dynamic defense!"),
        (logging.WARNING, "there are 2 points with zero gradient!"),
        (logging.WARNING, "there are 3 points with zero gradient!"),
    ]
    assert {record.name for record in caplog.records} == {"robust_arch.attacks.autoattack"}
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.parametrize(("block_size", "blocks"), [(3, [[0, 1, 2], [3, 4, 5], [6, 7]]), (8, [[*range(8)]])])
def test_the_authors_module_sees_blocks_in_the_order_of_the_index(block_size, blocks, authors, linear):
    net, x, y = linear(torch.zeros(5, 25)), images(8), torch.arange(8) % 5
    order = INDEX_ORDER
    attack = AutoAttack(package="autoattack", block_size=block_size)
    threat = ThreatModel("linf", 0.1)
    x_adv = attack(net, x[order], y[order], threat, index=10 * order)
    assert len(authors.made) == len(blocks)  # a suite for each
    for suite, block in zip(authors.made, blocks, strict=True):
        ((seen_x, seen_y, bs),) = suite.blocks
        assert (seen_x.tolist(), seen_y.tolist(), bs) == (x[block].tolist(), y[block].tolist(), block_size)
    reached = x + 0.1 * (y == 0)[:, None, None, None]  # without slope every image is called 0
    assert torch.equal(x_adv, threat.region(x).project(reached)[order])
