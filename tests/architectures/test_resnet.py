"""The post-activation ResNet against a second one, written here from its equations, and against published code."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyautoattack.examples.resnet import ResNet18
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from robust_arch.architectures import PRESETS, ArchSpec, build, cost
from robust_arch.architectures.family import get_family
from robust_arch.errors import InputError

ACTIVATION = {
    "relu": lambda z: z.clamp(min=0),
    "silu": lambda z: z / (1 + torch.exp(-z)),
}


def batch_norm(state, name, x):
    def channel(key):
        return state[f"{name}.{key}"][:, None, None]

    scale = channel("weight") / torch.sqrt(channel("running_var") + 1e-5)
    return (x - channel("running_mean")) * scale + channel("bias")


def block(state, name, x, projects, stride, act):
    h = act(batch_norm(state, f"{name}.bn1", F.conv2d(x, state[f"{name}.conv1.weight"], stride=stride, padding=1)))
    h = batch_norm(state, f"{name}.bn2", F.conv2d(h, state[f"{name}.conv2.weight"], padding=1))
    if projects:
        weight = state[f"{name}.shortcut.0.weight"][:, :, 0, 0]
        x = torch.einsum("oc,bchw->bohw", weight, x[:, :, ::stride, ::stride])
        x = batch_norm(state, f"{name}.shortcut.1", x)
    return act(h + x)


def reference_logits(state, spec, x):
    act = ACTIVATION[spec.activation]
    h = act(batch_norm(state, "network.bn", F.conv2d(x, state["network.stem.weight"], padding=1)))
    c_in = spec.stem_width
    for stage, (depth, width) in enumerate(zip(spec.depths, spec.widths, strict=True)):
        for i in range(depth):
            stride = 2 if stage > 0 and i == 0 else 1
            h = block(state, f"network.stages.{stage}.{i}", h, stride == 2 or c_in != width, stride, act)
            c_in = width
    pooled = h.sum(dim=(2, 3)) / (h.shape[2] * h.shape[3])
    return pooled @ state["network.fc.weight"].T + state["network.fc.bias"]


def randomised(net):
    """All parameters and statistics random, in float64: nothing is 0 or 1 by default and hides a mistake."""
    generator = torch.Generator().manual_seed(0)
    net = net.double().eval()
    for name, tensor in net.state_dict().items():
        if tensor.is_floating_point() and "normalize" not in name:
            noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            tensor.copy_(0.5 + noise.abs() if name.endswith("running_var") else 0.5 * noise)
    return net


def random_images(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


SPECS = [
    ArchSpec("resnet", (1, 2, 1, 1), (8, 8, 8, 8), stem_width=8),  # no width changes: projections by stride alone
    ArchSpec("resnet", (2, 1, 1, 2), (6, 9, 12, 5), stem_width=4),  # the first stage projects without a stride
    ArchSpec("resnet", (1, 1, 2, 1), (4, 7, 7, 3), stem_width=4, activation="silu"),
]


@pytest.mark.parametrize("image_shape", [(3, 8, 8), (1, 7, 10), (2, 1, 1)], ids=str)
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.widths}-{spec.activation}")
def test_logits_equal_a_second_implementation(spec, image_shape):
    net = randomised(build(spec, 5, image_shape, seed=0))
    x = random_images(3, *image_shape)
    with torch.no_grad():
        torch.testing.assert_close(net(x), reference_logits(net.state_dict(), spec, x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.widths}-{spec.activation}")
def test_every_parameter_takes_part(spec):
    # a parameter without gradient would stop distributed training
    net = build(spec, 5, (3, 16, 16), seed=0)
    net(random_images(8, 3, 16, 16).float()).square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_convolutions_start_at_the_scale_of_he_et_al():
    net = build(ArchSpec("resnet", (1, 1, 1, 1), (64, 96, 96, 96), stem_width=64), 10, (3, 8, 8), seed=0)
    weights = [p.detach() for p in net.parameters() if p.ndim == 4]
    assert len(weights) == 1 + 4 * 2 + 3  # the stem, two convolutions a block, projections of all stages but the first
    for weight in weights:
        c_out, _, kh, kw = weight.shape
        expected = math.sqrt(2 / (kh * kw * c_out))
        # the relative standard error of a normal sample's deviation is 1 / sqrt(2 n); 5 of them
        assert weight.std().item() == pytest.approx(expected, rel=5 / math.sqrt(2 * weight.numel()))


def counted(net, image_shape):
    """Parameters and MACs counted by torch, which takes a multiply-accumulate for two operations."""
    with FlopCounterMode(display=False) as counter:
        net(torch.empty(1, *image_shape, device="meta"))
    return sum(parameter.numel() for parameter in net.parameters()), counter.get_total_flops() / 2


def on_meta(make):
    with torch.device("meta"):
        return make().eval()


def test_the_preset_costs_what_published_code_does():
    result = cost(PRESETS["resnet18"])
    assert result.params == 11_173_962
    assert (result.params, result.macs) == counted(on_meta(ResNet18), (3, 32, 32))


@settings(max_examples=25)
@given(
    st.tuples(*[st.integers(1, 3)] * 4),
    st.tuples(*[st.sampled_from([1, 2, 3, 8, 33])] * 4),
    st.sampled_from([1, 8, 24]),
    st.tuples(st.integers(2, 20), st.tuples(st.integers(1, 4), st.integers(1, 40), st.integers(1, 40))),
)
def test_formula_equals_what_torch_counts_in_the_built_network(depths, widths, stem_width, task):
    spec = ArchSpec("resnet", depths, widths, stem_width=stem_width)
    result = cost(spec, *task)
    assert (result.params, result.macs) == counted(on_meta(lambda: build(spec, *task)), task[1])


def test_hand_computed_network():
    # 1x8x8 images, 2 classes, stem 2. Stage 1 (2 to 2, 8x8): convolutions 36 + 36, BN 4 + 4.
    # Stage 2 (2 to 2 at stride 2, 4x4): the same, and a projection 4 with BN 4.
    # Stage 3 (2 to 3, 2x2): convolutions 54 + 81, BN 6 + 6, projection 6 with BN 6.
    # Stage 4 (3 to 1, 1x1): convolutions 27 + 9, BN 2 + 2, projection 3 with BN 2.
    # Outside: stem 18 weights at 64 positions, BN 4; linear 2 + 2.
    result = cost(ArchSpec("resnet", (1, 1, 1, 1), (2, 2, 3, 1), stem_width=2), 2, (1, 8, 8))
    assert result.stage_params == (80, 88, 159, 45)
    assert result.stage_macs == (72 * 64, 76 * 16, 141 * 4, 39)
    assert result.params == 80 + 88 + 159 + 45 + 18 + 4 + 4
    assert result.macs == 4608 + 1216 + 564 + 39 + 18 * 64 + 2


def test_arrays_of_architectures_cost_what_each_costs_alone():
    rng = np.random.default_rng(0)
    many_depths = rng.integers(1, 30, size=(4, 100))
    many_widths = rng.choice([16, 64, 512], size=(4, 100))  # equal adjacent widths are among them
    terms = get_family("resnet").cost_terms(tuple(many_depths), tuple(many_widths), 64, 10, (3, 32, 31))
    params = sum(terms.stage_params) + terms.outside_params
    macs = sum(terms.stage_macs) + terms.outside_macs
    assert params.dtype == macs.dtype == np.int64
    for i in range(100):
        spec = ArchSpec("resnet", many_depths[:, i].tolist(), many_widths[:, i].tolist(), stem_width=64)
        alone = cost(spec, 10, (3, 32, 31))
        assert (params[i], macs[i]) == (alone.params, alone.macs)
        assert tuple(stage[i] for stage in terms.stage_params) == alone.stage_params
        assert tuple(stage[i] for stage in terms.stage_macs) == alone.stage_macs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depths": (2, 2, 2), "widths": (16, 32, 64)}, r"arch\.depths = \(2, 2, 2\): family resnet has 4 stages"),
        ({"dropout": 0.1}, r"arch\.dropout = 0\.1: 0, as family resnet has no dropout"),
        ({"options": {"base_width": 128}}, r"arch\.options\.base_width = 128: 64 for basic blocks"),
        ({"options": {"block": "wide"}}, r"arch\.options\.block = 'wide': one of basic, bottleneck"),
    ],
)
def test_what_the_family_does_not_have_is_named(change, message):
    with pytest.raises(InputError, match=message):
        ArchSpec(**{"family": "resnet", "depths": (2, 2, 2, 2), "widths": (8, 8, 8, 8), **change})


def slope_between(f, x, step):
    return (f(x + step) - f(x)).flatten(1).norm(dim=1) / step.flatten(1).norm(dim=1)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.widths}-{spec.activation}")
def test_no_part_stretches_a_change_by_more_than_its_bound(spec):
    net = randomised(build(spec, 5, (3, 8, 8), seed=0)).network

    def norm(layer):
        """From the whole matrix of the layer, on the sizes that it works on."""
        size = sizes[layer]
        zero = layer(torch.zeros(1, *size, dtype=torch.float64))
        basis = torch.eye(math.prod(size), dtype=torch.float64).view(-1, *size)
        return torch.linalg.matrix_norm((layer(basis) - zero).flatten(1), 2).item()

    sizes = {}

    def note(layer, args, out):
        sizes[layer] = args[0].shape[1:]

    handles = [layer.register_forward_hook(note) for layer in net.modules()]
    x = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    with torch.no_grad():
        net(x)
        for handle in handles:
            handle.remove()
        bounds = net.lipschitz_bounds(norm)
        assert list(bounds) == ["stem", "stage 1", "stage 2", "stage 3", "stage 4", "head"]
        parts = [lambda h: net.activation(net.bn(net.stem(h))), *net.stages, lambda h: net.fc(net.pool(h))]
        for part, bound in zip(parts, bounds.values(), strict=True):
            step = 1e-3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
            measured = slope_between(part, x, step).max().item()
            assert 0 < measured <= bound * (1 + 1e-6)
            x = part(x)
