"""The frozen network against closed forms, against the network itself, and against its attacks."""

import copy
import logging

import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from robust_arch.architectures import ArchSpec, build
from robust_arch.attacks import PGD, Clean, KLToClean, ThreatModel
from robust_arch.engine import AttackableNetwork, compile_blocks
from robust_arch.engine.frozen import FrozenNetwork, NotFreezableError

SPECS = {
    "projections": ArchSpec("wide_resnet", (2, 2, 2), (8, 12, 16)),
    "equal widths": ArchSpec("wide_resnet", (1, 3, 1), (16, 16, 16)),
    "smooth activation": ArchSpec("wide_resnet", (1, 1, 1), (8, 8, 12), activation="silu"),
    "dropout": ArchSpec("wide_resnet", (1, 1, 1), (8, 8, 12), dropout=0.3),
    "same padding": ArchSpec("wide_resnet", (1, 1, 1), (8, 8, 12), options={"padding": "same"}),
    "resnet": ArchSpec("resnet", (1, 2, 1, 1), (8, 16, 16, 24)),
}


def settled(spec, **kwargs):
    """A network in training mode whose BatchNorm layers have random weights and statistics."""
    net = build(spec, image_shape=(3, 16, 16), seed=0, **kwargs)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.weight, module.running_var):
                    tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
                for tensor in (module.bias, module.running_mean):
                    tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return net


@pytest.fixture
def net():
    return settled(SPECS["projections"], mean=[0.4, 0.5, 0.6], std=[0.2, 0.25, 0.3])


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(6, 3, 16, 16, generator=generator), torch.arange(6)


def distance(found, expected):
    """Largest difference, in units of the largest value."""
    return (found - expected).abs().max() / expected.abs().max()


def logits_and_gradient(net, x, y):
    x = x.clone().requires_grad_(True)
    logits = net(x)
    return logits.detach(), torch.autograd.grad(F.cross_entropy(logits, y, reduction="sum"), x)[0]


def test_a_convolution_and_its_batch_norm_by_hand():
    conv, norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=1.0)
    with torch.no_grad():
        conv.weight.fill_(2.0), conv.bias.fill_(1.0)
        norm.weight.fill_(3.0), norm.bias.fill_(7.0), norm.running_mean.fill_(5.0), norm.running_var.fill_(3.0)
    # z = 2 x + 1, then 3 (z - 5) / sqrt(4) + 7 = 3 x + 1: weight 3 and bias 1
    frozen = FrozenNetwork(nn.Sequential(conv, norm))
    assert [float(tensor) for tensor in frozen.trunk.tensors] == [3.0, 1.0]
    assert frozen(torch.full((1, 1, 1, 1), 0.5)).item() == 2.5
    # without bias z = 2 x, then without weights (z - 5) / sqrt(4) = x - 2.5
    conv.bias = norm.weight = norm.bias = None
    norm.affine = False
    assert [float(tensor) for tensor in FrozenNetwork(nn.Sequential(conv, norm)).trunk.tensors] == [1.0, -2.5]


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_logits_and_input_gradients_are_those_of_evaluation_mode(spec, images):
    net = settled(spec, mean=[0.4, 0.5, 0.6], std=[0.2, 0.25, 0.3])
    frozen = FrozenNetwork(net)
    assert net.training
    assert all(parameter.requires_grad for parameter in net.parameters())
    found, expected = logits_and_gradient(frozen, *images), logits_and_gradient(net.eval(), *images)
    assert max(map(distance, found, expected)) <= 1e-5
    assert all(parameter.grad is None for parameter in net.parameters())


def regions_of(spec):
    frozen = FrozenNetwork(settled(spec))
    return [module for module in frozen.modules() if isinstance(module, type(frozen.trunk))]


def test_batch_norm_stays_only_where_no_convolution_stands_before_it():
    """Pre-activation: the first of each of 6 blocks and the last; post-activation: none."""
    for name, left in (("projections", 7), ("resnet", 0)):
        nodes = [node for region in regions_of(SPECS[name]) for node in region.graph.nodes]
        assert sum(node.target is F.batch_norm for node in nodes) == left


def test_blocks_of_one_structure_share_their_code():
    """Five blocks per stage: the first ones project at stride 1 and 2, the others are alike whatever their width."""
    regions = regions_of(ArchSpec("wide_resnet", (5, 5, 5), (8, 12, 16)))
    assert len(regions) == 1 + 15
    assert len({id(region.run) for region in regions}) == 1 + 3


def test_training_moves_the_frozen_network_at_the_next_refresh(net, images):
    x, y = images
    frozen, attackable = FrozenNetwork(net), AttackableNetwork(net)
    attackable.attacked(x)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    F.cross_entropy(net(x), y).backward()  # moves the statistics as well
    optimizer.step()
    expected = net.eval()(x)
    assert distance(frozen(x), expected) > 1e-2
    frozen.refresh()
    assert distance(frozen(x), expected) <= 1e-5
    assert distance(attackable.attacked(x)(x), expected) <= 1e-5


def test_replaced_tensors_are_noticed_and_frozen_again(net, images):
    frozen, attackable = FrozenNetwork(net), AttackableNetwork(net)
    attackable.attacked(images[0])
    for parameter in net.parameters():
        parameter.data = 1.5 * parameter.data
    with pytest.raises(RuntimeError, match="freeze it again"):
        frozen.refresh()
    assert distance(attackable.attacked(images[0])(images[0]), net.eval()(images[0])) <= 1e-5


class TakesMore(nn.Module):
    def forward(self, x, features=False):
        return x.flatten(1)


class LooksAtItsValues(nn.Module):
    def forward(self, x):
        return x.flatten(1) if x.sum() > 0 else -x.flatten(1)


@pytest.mark.parametrize(
    "odd",
    [
        nn.GroupNorm(1, 3),
        nn.BatchNorm2d(3, track_running_stats=False),
        nn.Conv2d(3, 3, 3, padding=1, padding_mode="circular"),
        parametrizations.weight_norm(nn.Conv2d(3, 3, 3)),
        parametrizations.spectral_norm(nn.Conv2d(3, 3, 3)),
        nn.Conv2d(3, 3, 3).double(),
        TakesMore(),
        LooksAtItsValues(),
    ],
    ids=["group norm", "no statistics", "circular", "weight norm", "spectral norm", "float64", "two inputs", "looks"],
)
def test_what_has_no_constant_form_is_attacked_as_it_is(odd, images, caplog):
    net = odd if isinstance(odd, TakesMore | LooksAtItsValues) else nn.Sequential(odd, nn.Flatten())
    with pytest.raises(NotFreezableError):
        FrozenNetwork(net)
    x = images[0].to(next(iter([*net.parameters(), images[0]])).dtype)
    with caplog.at_level(logging.WARNING):
        network = AttackableNetwork(net)
        assert network.attacked(x) is net
        assert network.attacked(x) is net
    assert len(caplog.messages) == 1


class CountsItsCalls(nn.Module):
    """A trace keeps the count of the moment it was made."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return x.flatten(1) * self.calls


def test_a_network_whose_trace_is_not_what_it_computes_is_attacked_as_it_is(images, caplog):
    net = CountsItsCalls()
    assert AttackableNetwork(net).attacked(images[0]) is net
    assert "would differ" in caplog.text


class Squeezes(nn.Module):
    """Squeeze and excitation: its linear layer's float32 meets the stages' bfloat16."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.squeeze = nn.Linear(4, 4)

    def forward(self, x):
        hidden = self.first(x)
        gate = torch.sigmoid(self.squeeze(hidden.mean(dim=(2, 3))))
        return self.last(hidden * gate[:, :, None, None]).mean(dim=(2, 3))


def test_where_bfloat16_does_not_go_together_attacks_see_float32(images, caplog):
    net = Squeezes()
    attacked = AttackableNetwork(net, torch.bfloat16).attacked(images[0])
    assert (attacked.dtype, "float32" in caplog.text) == (torch.float32, True)
    torch.testing.assert_close(attacked(images[0]), net(images[0]))


class WithoutCompiler:
    """Takes the code of blocks as a compiler would, and leaves it as it is."""

    def __call__(self, function):
        return lambda *args: function(*args)

    def begin_step(self):
        pass


class Staged(nn.Module):
    def __init__(self, *block):
        super().__init__()
        self.stages = nn.Sequential(nn.Sequential(nn.Sequential(*block)))

    def forward(self, x):
        return self.stages(x).flatten(1)


class FunctionalDropout(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.5, training=self.training)


@pytest.mark.parametrize(
    "layer",
    [nn.Dropout2d(0.5), nn.RReLU(0.1, 0.9), FunctionalDropout(), nn.BatchNorm2d(3, bias=False)],
    ids=["dropout", "random slope", "functional", "no bias"],
)
@pytest.mark.parametrize("compiler", [None, WithoutCompiler()], ids=["eager", "held by a compiler"])
def test_blocks_are_in_evaluation_mode_whoever_holds_their_code(layer, compiler, images):
    net = Staged(nn.Conv2d(3, 3, 1), layer).train()
    net(images[0])  # gives BatchNorm its statistics
    frozen = FrozenNetwork(net, compiler=compiler).eval()
    assert net.training
    torch.testing.assert_close(frozen(images[0]), net.eval()(images[0]))


def test_half_precision_keeps_normalisation_linear_layer_and_logits_in_float32(net, images):
    frozen = FrozenNetwork(net, torch.bfloat16)
    seen = {}

    class Watch(fx.Interpreter):
        def run_node(self, node):
            result = super().run_node(node)
            seen[node.name] = result.dtype
            return result

    x = frozen.normalize(images[0])
    assert x.dtype == torch.float32
    trunk = fx.GraphModule(dict(frozen.trunk.run.named_modules()), frozen.trunk.graph)
    Watch(trunk).run(x.bfloat16(), *frozen.trunk.tensors)
    assert seen["float_1"] == torch.float32
    assert {dtype for name, dtype in seen.items() if "stages_" in name} == {torch.bfloat16}
    assert frozen(images[0]).dtype == torch.float32


@pytest.mark.parametrize(
    ("loss", "dtype", "tolerance"),
    [
        ("cross-entropy", torch.float32, 1e-4),
        ("cross-entropy", torch.bfloat16, 0.03),
        # flat where it starts: more signs are in doubt
        ("kl", torch.float32, 0.01),
        ("kl", torch.bfloat16, 0.1),
    ],
)
@pytest.mark.parametrize("threat", [ThreatModel("linf", "8/255"), ThreatModel("l2", "0.5")], ids=str)
def test_attacks_reach_the_loss_that_they_reach_on_the_network_itself(threat, loss, dtype, tolerance, images):
    """Signs flip where a gradient is near 0, so what the attack gained is compared."""
    x, y = images
    net = settled(ArchSpec("wide_resnet", (2, 2, 2), (16, 24, 40))).eval()
    with torch.no_grad():
        net.network.fc.weight.mul_(3)  # an untrained network's logits hardly move
    start = {"loss": KLToClean()} if loss == "kl" else {"start": Clean()}
    attack = PGD(steps=10, rel_step_size=0.25, **start)
    reached = []
    for attacked in (net, AttackableNetwork(net, dtype)):
        x_adv = attack(attacked, x, y, threat, seed=3)
        with torch.no_grad():
            clean, logits = net(x), net(x_adv)
        kl = F.kl_div(logits.log_softmax(1), clean.softmax(1), reduction="batchmean")
        reached.append(kl if loss == "kl" else F.cross_entropy(logits, y) - F.cross_entropy(clean, y))
    plain, fast = reached
    assert plain > 1e-3
    assert (fast - plain).abs() <= tolerance * plain


def test_attacks_leave_the_network_as_it_was(images):
    net = settled(SPECS["resnet"])
    before = copy.deepcopy(net.state_dict())
    PGD(steps=2, rel_step_size=0.5)(AttackableNetwork(net, torch.bfloat16), *images, ThreatModel("linf", "8/255"))
    assert all(torch.equal(before[key], after) for key, after in net.state_dict().items())
    assert all(module.training for module in net.modules())


@pytest.mark.slow
def test_compiled_blocks_give_the_same_logits_and_gradients(net, images):
    compiled, eager = (AttackableNetwork(net, compiled=c).attacked(images[0]) for c in (True, False))
    found = logits_and_gradient(compiled, *images)
    assert max(map(distance, found, logits_and_gradient(eager, *images))) <= 1e-5
    assert all(map(torch.equal, found, logits_and_gradient(compiled, *images)))


@pytest.mark.slow
def test_compiled_blocks_train_like_eager_ones(images):
    (x, y), net = images, settled(ArchSpec("wide_resnet", (1, 1, 1), (8, 8, 8)))
    compiled = copy.deepcopy(net)
    compile_blocks(compiled.network)
    assert list(compiled.state_dict()) == list(net.state_dict())
    for each in (net, compiled):
        F.cross_entropy(each(x), y).backward()
    pairs = zip(net.named_parameters(), compiled.parameters(), strict=True)
    assert {name: float(distance(b.grad, a.grad)) for (name, a), b in pairs if distance(b.grad, a.grad) > 1e-4} == {}
    torch.testing.assert_close(compiled.state_dict(), net.state_dict(), atol=1e-5, rtol=1e-4)  # running statistics
    # attacks see the same form, and evaluation mode the same logits
    frozen = AttackableNetwork(compiled).attacked(x)
    assert distance(frozen(x), compiled.eval()(x)) <= 1e-5
