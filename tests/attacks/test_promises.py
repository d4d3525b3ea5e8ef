"""What every attack promises whatever its inside does: see `robust_arch.attacks.base.Attack`."""

import random
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from evaluations import shorten_square
from torch import nn

from robust_arch.attacks import NFGSM, PGD, Attack, Bernoulli, Clean, GuidedMargin, Margin, ThreatModel
from robust_arch.attacks.autoattack import AutoAttack
from robust_arch.errors import InputError

THREAT = ThreatModel("linf", 0.2)
FGSM = PGD(steps=1, rel_step_size=1.0, start=Clean())
PGD5 = PGD(steps=5, rel_step_size=0.25)
GAMA = PGD(steps=100, rel_step_size=2.0, drops=(60, 85), start=Bernoulli(), loss=GuidedMargin())
CW5 = PGD(steps=5, rel_step_size=0.25, loss=Margin())


@dataclass(frozen=True)
class Rogue(Attack):
    """Draws from every global generator, writes into the image, leaves the ball and the box."""

    shift: float = 7.0
    unfreeze: bool = False

    def run(self, net, x, y, threat, seed, index):
        torch.manual_seed(1)
        np.random.seed(1)  # noqa: NPY002
        random.seed(1)
        net.train()
        net.requires_grad_(self.unfreeze)
        return x.add_(self.shift)


GRADIENT_ATTACKS = pytest.mark.parametrize("attack", [FGSM, PGD5, CW5], ids=["fgsm", "pgd", "cw"])
ALL = {"fgsm": FGSM, "pgd": PGD5, "cw": CW5, "autoattack": AutoAttack(), "rogue": Rogue()}
ATTACKS = pytest.mark.parametrize("attack", ALL.values(), ids=ALL)
L2 = ThreatModel("l2", 0.3)


@pytest.fixture
def net():
    """A network in a mixed state: some parts train, some do not, one parameter is frozen, gradients are set."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        convolution = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        net = nn.Sequential(convolution, nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 9, 5), nn.BatchNorm1d(5))
        for parameter in net.parameters():
            parameter.grad = torch.randn_like(parameter)
        for norm in (net[0][1], net[4]):
            norm.running_mean.normal_()
    net[0][1].eval()
    net[3].weight.requires_grad_(False)
    net[3].bias.grad = None
    return net


def batch(size):
    generator = torch.Generator().manual_seed(size)
    return torch.rand(size, 1, 3, 3, generator=generator), torch.randint(5, (size,), generator=generator)


def state_of(net):
    """Everything about a network that an attack could disturb, in a form that compares bit for bit."""
    parameters = {
        name: (p.requires_grad, p.detach().numpy().tobytes(), None if p.grad is None else p.grad.numpy().tobytes())
        for name, p in net.named_parameters()
    }
    buffers = {name: b.numpy().tobytes() for name, b in net.named_buffers()}
    return parameters, buffers, {name: module.training for name, module in net.named_modules()}


def random_state():
    kind, words, *rest = np.random.get_state()  # noqa: NPY002
    return torch.get_rng_state().numpy().tobytes(), (kind, words.tobytes(), *rest), random.getstate()


@pytest.fixture
def tracing():
    """A trace function, as a debugger or a coverage tool sets one, and whatever was set before afterwards."""

    def trace(frame, event, argument):
        return None

    before = sys.gettrace()
    sys.settrace(trace)
    yield trace
    sys.settrace(before)


# the library's Square attack needs larger images under l2
@pytest.mark.parametrize(
    ("attack", "threat"),
    [*((attack, THREAT) for attack in ALL.values()), (PGD5, L2), (CW5, L2), (Rogue(unfreeze=True), L2)],
)
def test_the_network_and_the_random_states_are_left_as_they_were(attack, threat, net, monkeypatch):
    shorten_square(monkeypatch)
    x, y = batch(4)
    before = state_of(net), random_state()
    attack(net, x, y, threat)
    assert (state_of(net), random_state()) == before


@pytest.mark.parametrize("attack", [FGSM, PGD5, CW5, AutoAttack()], ids=["fgsm", "pgd", "cw", "autoattack"])
def test_they_are_left_as_they_were_where_the_network_raises(attack, net, tracing):
    def fail_under_attack(module, args):
        if torch.is_grad_enabled():  # not where a pass only finds something out: within the attack proper
            raise RuntimeError("out of memory")

    handle = net.register_forward_pre_hook(fail_under_attack)
    before = state_of(net), random_state()
    with pytest.raises(RuntimeError, match="out of memory"):
        attack(net, *batch(4), THREAT)
    handle.remove()
    assert (state_of(net), random_state()) == before


@pytest.mark.parametrize("attack", [PGD5, AutoAttack()], ids=["pgd", "autoattack"])
def test_a_debugger_or_coverage_tool_keeps_its_trace_function(attack, net, tracing):
    x, _ = batch(4)
    y = net.eval()(x).argmin(dim=1)  # misclassified already: the library's checks run, its slow attacks do not
    attack(net, x, y, THREAT)
    assert sys.gettrace() is tracing


@GRADIENT_ATTACKS
def test_the_network_is_attacked_in_evaluation_mode(attack, net):
    seen = []
    net.register_forward_pre_hook(lambda module, args: seen.append([m.training for m in module.modules()]))
    attack(net, *batch(2), THREAT)
    assert seen
    assert not any(any(modes) for modes in seen)


@pytest.mark.parametrize("threat", [THREAT, L2], ids=str)
@pytest.mark.parametrize("attack", [FGSM, PGD5, CW5, Rogue()], ids=["fgsm", "pgd", "cw", "rogue"])
def test_the_result_lies_in_ball_and_box_and_is_a_tensor_of_its_own(attack, threat, net):
    x, y = batch(4)
    x.requires_grad_(True)
    clean = x.detach().clone()
    x_adv = attack(net, x, y, threat)
    assert torch.equal(x, clean)
    assert x.grad is None
    assert x_adv.data_ptr() != x.data_ptr()
    assert not x_adv.requires_grad
    assert x_adv.dtype == x.dtype
    offset = (x_adv.double() - clean.double()).flatten(1)
    assert (offset.norm(dim=1, p=torch.inf if threat is THREAT else 2) <= threat.eps).all()
    assert ((x_adv >= 0) & (x_adv <= 1)).all()
    if threat is THREAT and isinstance(attack, Rogue):  # whatever an attack returns is projected
        np.testing.assert_allclose(x_adv, np.minimum(clean.numpy() + 0.2, 1), rtol=0, atol=2.0**-23)


class Detached(nn.Sequential):
    def forward(self, x):
        return super().forward(x).detach()


class Classes(nn.Sequential):
    def forward(self, x):
        return nn.functional.one_hot(super().forward(x).argmax(dim=1), 5).float()


@pytest.mark.parametrize("attack", [FGSM, CW5, NFGSM(), AutoAttack()], ids=["fgsm", "cw", "n_fgsm", "autoattack"])
@pytest.mark.parametrize("kind", [Detached, Classes])
def test_a_network_without_a_gradient_is_named(kind, attack, net):
    with pytest.raises(InputError, match=r"net = 'logits without a gradient': .*differentiable"):
        attack(kind(net), *batch(2), THREAT)


@pytest.mark.parametrize("shift", [float("nan"), float("inf")])
def test_results_that_are_not_finite_are_refused(shift, net):
    with pytest.raises(FloatingPointError, match="not finite"):
        Rogue(shift=shift)(net, *batch(2), THREAT)


@GRADIENT_ATTACKS
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_the_caller_may_have_switched_gradients_off(context, attack, net):
    x, y = batch(4)
    expected = attack(net, x, y, THREAT)
    with context():
        inside = attack(net, x.clone(), y.clone(), THREAT)
    assert torch.equal(inside, expected)


@GRADIENT_ATTACKS
@pytest.mark.parametrize("size", [0, 1])
def test_small_batches(size, attack, net):
    x, y = batch(size)
    before = state_of(net), random_state()
    assert attack(net, x, y, THREAT).shape == x.shape
    assert (state_of(net), random_state()) == before


@pytest.fixture
def flat(linear):
    """A network without slope: the attack stays where it starts."""
    return linear(torch.zeros(5, 9))


@pytest.mark.parametrize(
    ("attack", "threat"), [(PGD5, THREAT), (PGD5, L2), (PGD(steps=3, rel_step_size=2.0, start=Bernoulli()), THREAT)]
)
def test_the_start_of_an_example_follows_from_seed_and_index_alone(attack, threat, flat):
    x, y = batch(8)
    index = torch.tensor([40, 7, 0, 3, 1000, 2, 11, 5])
    starts = attack(flat, x, y, threat, seed=3, index=index)
    order = torch.tensor([5, 0, 7])
    assert torch.equal(attack(flat, x[order], y[order], threat, seed=3, index=index[order]), starts[order])
    for i in range(8):
        alone = attack(flat, x[i : i + 1], y[i : i + 1], threat, seed=3, index=index[i : i + 1])
        assert torch.equal(alone[0], starts[i])
    # seeds and indices give different starts; calls are stateless and default to seed 0 and positions
    grey = torch.full_like(x, 0.5)
    starts = torch.cat([attack(flat, grey, y, threat, seed=seed) for seed in (0, 1, 2)])
    # of 2^9 corners a few may be drawn twice
    assert len(starts.unique(dim=0)) >= (20 if isinstance(attack.start, Bernoulli) else 24)
    for _ in range(2):
        assert torch.equal(attack(flat, grey, y, threat, seed=0, index=torch.arange(8)), starts[:8])


@pytest.mark.parametrize(("attack", "threat"), [(PGD5, THREAT), (CW5, THREAT), (GAMA, THREAT), (GAMA, L2)])
def test_an_attack_does_not_depend_on_the_company_of_an_example(attack, threat, net):
    # in float64, so that the order of sums in a batch of another size decides no sign
    net, (x, y) = net.double(), batch(4)
    x = x.double()
    together = attack(net, x, y, threat, seed=1)
    alone = [
        attack(net, x[i : i + 1], y[i : i + 1], threat, seed=1, index=torch.tensor([i])) for i in reversed(range(4))
    ]
    # such sums change the last bits of a step that is not a sign
    torch.testing.assert_close(torch.cat(alone[::-1]), together, rtol=0, atol=1e-12 if threat is THREAT else 1e-9)


X, Y = batch(2)


@ATTACKS
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X + 0.5, Y, r"x = .*: expected images in \[0, 1\]"),
        (X - 0.5, Y, r"x = .*: expected images in \[0, 1\]"),
        (X * float("nan"), Y, r"x = .*nan.*: expected images in \[0, 1\]"),
        ((X * 255).byte(), Y, r"x = .*uint8.*: expected float32 or float64 images of shape"),
        (X[0], Y, r"x = .*\(1, 3, 3\).*: expected float32 or float64 images of shape"),
        (X, torch.tensor([0, -1]), "y = -1: expected labels of at least 0"),
        (X, Y.float(), r"y = .*float32.*: expected int64 labels of shape \(2,\)"),
        (X, Y[:1], r"y = .*\(1,\).*: expected int64 labels of shape \(2,\)"),
        (X, Y[:, None], r"y = .*\(2, 1\).*: expected int64 labels of shape \(2,\)"),
    ],
)
def test_bad_input_is_named_and_changes_nothing(x, y, message, attack, net):
    before = state_of(net), random_state()
    with pytest.raises(InputError, match=message):
        attack(net, x, y, THREAT)
    assert (state_of(net), random_state()) == before


@pytest.mark.parametrize("attack", [FGSM, PGD5, CW5, AutoAttack()], ids=["fgsm", "pgd", "cw", "autoattack"])
def test_labels_beyond_the_classes_are_named(attack, net):
    before = state_of(net), random_state()
    with pytest.raises(InputError, match=r"y = 5: .*number of classes, 5"):
        attack(net, X, torch.tensor([5, 0]), THREAT)
    assert (state_of(net), random_state()) == before
