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
from robust_arch.engine import AttackableNetwork
from robust_arch.engine.frozen import FrozenNetwork, NotFreezableError

SPECS = {
    "projections": ArchSpec("wide_resnet", (2, 2, 2), (16, 24, 40)),
    "equal widths": ArchSpec("wide_resnet", (1, 3, 1), (16, 16, 16)),
    "smooth activation": ArchSpec("wide_resnet", (1, 1, 1), (8, 8, 12), activation="silu"),
    "dropout": ArchSpec("wide_resnet", (1, 1, 1), (8, 8, 12), dropout=0.3),
    "resnet": ArchSpec("resnet", (1, 2, 1, 1), (8, 16, 16, 24)),
}


def settled(spec, *, seed=0, **kwargs):
    """A network in training mode whose BatchNorm layers have random weights and statistics."""
    net = build(spec, image_shape=(3, 16, 16), seed=seed, **kwargs)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.weight, module.running_var):
                    tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
                for tensor in (module.bias, module.running_mean):
                    tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return net


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(6, 3, 16, 16, generator=generator), torch.arange(6)


def logits_and_gradient(net, x, y):
    x = x.clone().requires_grad_(True)
    logits = net(x)
    return logits.detach(), torch.autograd.grad(F.cross_entropy(logits, y, reduction="sum"), x)[0]


def test_a_convolution_and_its_batch_norm_by_hand():
    """z = 2 x + 1, then 3 (z - 5) / sqrt(4) + 7 = 3 x + 1: weight 3 and bias 1."""
    conv, norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=1.0)
    with torch.no_grad():
        conv.weight.fill_(2.0), conv.bias.fill_(1.0)
        norm.weight.fill_(3.0), norm.bias.fill_(7.0), norm.running_mean.fill_(5.0), norm.running_var.fill_(3.0)
    frozen = FrozenNetwork(nn.Sequential(conv, norm))
    assert [float(tensor) for tensor in frozen.trunk.tensors] == [3.0, 1.0]
    assert frozen(torch.full((1, 1, 1, 1), 0.5)).item() == 2.5


def test_a_batch_norm_without_weights_and_a_convolution_without_bias_by_hand():
    """z = 2 x, then (z - 6) / sqrt(4) = x - 3."""
    conv, norm = nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1, eps=1.0, affine=False)
    with torch.no_grad():
        conv.weight.fill_(2.0), norm.running_mean.fill_(6.0), norm.running_var.fill_(3.0)
    assert [float(tensor) for tensor in FrozenNetwork(nn.Sequential(conv, norm)).trunk.tensors] == [1.0, -3.0]


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_logits_and_input_gradients_are_those_of_evaluation_mode(spec, images):
    net = settled(spec, mean=[0.4, 0.5, 0.6], std=[0.2, 0.25, 0.3])
    frozen = FrozenNetwork(net)
    assert net.training
    assert all(parameter.requires_grad for parameter in net.parameters())
    found, expected = logits_and_gradient(frozen, *images), logits_and_gradient(net.eval(), *images)
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max() <= 1e-5 * other.abs().max()
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize(("spec", "left"), [(SPECS["projections"], 7), (SPECS["resnet"], 0)], ids=["pre", "post"])
def test_batch_norm_stays_only_where_no_convolution_stands_before_it(spec, left):
    """Pre-activation: the first of each of 6 blocks and the last; post-activation: none."""
    frozen = FrozenNetwork(settled(spec))
    regions = [module for module in frozen.modules() if isinstance(module, type(frozen.trunk))]
    norms = [node for region in regions for node in region.graph.nodes if node.target is F.batch_norm]
    assert len(norms) == left


def test_blocks_of_one_structure_share_their_code():
    """Five blocks a stage: the first ones project at stride 1 and 2, the others are alike whatever their width."""
    frozen = FrozenNetwork(settled(ArchSpec("wide_resnet", (5, 5, 5), (8, 12, 16))))
    regions = [module for module in frozen.modules() if isinstance(module, type(frozen.trunk))]
    assert len(regions) == 1 + 15
    assert len({id(region.run) for region in regions}) == 1 + 3


def test_training_moves_the_frozen_network_at_the_next_refresh(images):
    net = settled(SPECS["projections"])
    frozen = FrozenNetwork(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    F.cross_entropy(net(images[0]), images[1]).backward()  # moves the statistics as well
    optimizer.step()
    net.eval()
    expected = net(images[0])
    assert (frozen(images[0]) - expected).abs().max() > 1e-2 * expected.abs().max()
    frozen.refresh()
    assert (frozen(images[0]) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_replaced_tensors_are_noticed_and_frozen_again(images):
    net = settled(SPECS["projections"])
    frozen, attackable = FrozenNetwork(net), AttackableNetwork(net)
    attackable.attacked(images[0])
    for parameter in net.parameters():
        parameter.data = 1.5 * parameter.data
    with pytest.raises(RuntimeError, match="freeze it again"):
        frozen.refresh()
    expected = net.eval()(images[0])
    assert (attackable.attacked(images[0])(images[0]) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_what_attacks_see_follows_the_weights_of_now(images):
    net = settled(SPECS["projections"])
    attackable = AttackableNetwork(net)
    attackable.attacked(images[0])
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.5)
    expected = net.eval()(images[0])
    assert (attackable.attacked(images[0])(images[0]) - expected).abs().max() <= 1e-5 * expected.abs().max()


class TakesMore(nn.Module):
    def forward(self, x, features=False):
        return x.flatten(1)


@pytest.mark.parametrize(
    "odd",
    [
        nn.Sequential(nn.GroupNorm(1, 3), nn.Flatten()),
        nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), nn.Flatten()),
        nn.Sequential(nn.Conv2d(3, 3, 3, padding=1, padding_mode="circular"), nn.Flatten()),
        nn.Sequential(parametrizations.weight_norm(nn.Conv2d(3, 3, 3)), nn.Flatten()),
        nn.Sequential(parametrizations.spectral_norm(nn.Conv2d(3, 3, 3)), nn.Flatten()),
        nn.Sequential(nn.Conv2d(3, 3, 3), nn.Flatten()).double(),
        TakesMore(),
    ],
    ids=["group norm", "no statistics", "circular", "weight norm", "spectral norm", "float64", "two inputs"],
)
def test_what_has_no_constant_form_is_attacked_as_it_is(odd, images, caplog):
    with pytest.raises(NotFreezableError):
        FrozenNetwork(odd)
    x = images[0].to(next(iter([*odd.parameters(), images[0]])).dtype)
    with caplog.at_level(logging.WARNING):
        network = AttackableNetwork(odd)
        assert network.attacked(x) is odd
        assert network.attacked(x) is odd
    assert len(caplog.messages) == 1


class LooksAtItsValues(nn.Module):
    def forward(self, x):
        return x.flatten(1) if x.sum() > 0 else -x.flatten(1)


class CountsItsCalls(nn.Module):
    """A trace keeps the count of the moment it was made."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x.flatten(1) * self.calls


@pytest.mark.parametrize(("odd", "why"), [(LooksAtItsValues, "cannot be traced"), (CountsItsCalls, "would differ")])
def test_networks_whose_trace_is_not_what_they_compute_are_attacked_as_they_are(odd, why, images, caplog):
    net = odd()
    assert AttackableNetwork(net).attacked(images[0]) is net
    assert why in caplog.text


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


@pytest.mark.parametrize("noise", [nn.Dropout2d(0.5), nn.RReLU(0.1, 0.9)], ids=["dropout", "random slope"])
def test_blocks_are_in_evaluation_mode_also_where_a_compiler_holds_their_code(noise, images):
    net = Staged(nn.Conv2d(3, 3, 1), noise)
    frozen = FrozenNetwork(net, compiler=WithoutCompiler()).eval()
    torch.testing.assert_close(frozen(images[0]), net.eval()(images[0]))


def test_a_batch_norm_without_bias_is_folded(images):
    net = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3, bias=False), nn.Flatten())
    net(images[0])
    torch.testing.assert_close(FrozenNetwork(net)(images[0]), net.eval()(images[0]))


def test_what_depends_on_the_mode_is_frozen_in_evaluation_mode(images):
    class Functional(nn.Module):
        def forward(self, x):
            return F.dropout(x, 0.5, training=self.training).flatten(1)

    net = Functional().train()
    assert torch.equal(FrozenNetwork(net)(images[0]), images[0].flatten(1))
    assert net.training


def test_half_precision_keeps_normalisation_linear_layer_and_logits_in_float32(images):
    net = settled(SPECS["projections"], mean=[0.4, 0.5, 0.6], std=[0.2, 0.25, 0.3])
    frozen = FrozenNetwork(net, torch.bfloat16)
    seen = {}

    class Watch(fx.Interpreter):
        def run_node(self, node):
            result = super().run_node(node)
            seen[node.name] = result.dtype
            return result

    x = frozen.normalize(images[0])
    assert x.dtype == torch.float32
    Watch(fx.GraphModule(dict(frozen.trunk.run.named_modules()), frozen.trunk.graph)).run(
        x.bfloat16(), *frozen.trunk.tensors
    )
    assert seen["float_1"] == torch.float32
    assert {dtype for name, dtype in seen.items() if name.startswith("network_stages") or name == "stages_0_0"} == {
        torch.bfloat16
    }
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
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_attacks_reach_the_loss_that_they_reach_on_the_network_itself(norm, loss, dtype, tolerance, images):
    """Signs flip where a gradient is near 0, so what the attack gained is compared."""
    x, y = images
    net = settled(SPECS["projections"]).eval()
    with torch.no_grad():
        net.network.fc.weight.mul_(3)  # an untrained network's logits hardly move
    settings = {"steps": 10, "rel_step_size": 0.25}
    attack = PGD(**settings, loss=KLToClean()) if loss == "kl" else PGD(**settings, start=Clean())
    threat = ThreatModel(norm, "8/255" if norm == "linf" else "0.5")
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
    network = AttackableNetwork(net, torch.bfloat16)
    PGD(steps=2, rel_step_size=0.5)(network, *images, ThreatModel("linf", "8/255"))
    after = net.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert net.training
    assert all(module.training for module in net.modules())


@pytest.mark.slow
def test_compiled_blocks_give_the_same_logits_and_gradients(images):
    net = settled(SPECS["projections"])
    compiled, eager = (AttackableNetwork(net, compiled=c).attacked(images[0]) for c in (True, False))
    for one, other in zip(*(logits_and_gradient(n, *images) for n in (compiled, eager)), strict=True):
        assert (one - other).abs().max() <= 1e-5 * other.abs().max()
    again = logits_and_gradient(compiled, *images)
    assert all(torch.equal(a, b) for a, b in zip(again, logits_and_gradient(compiled, *images), strict=True))
