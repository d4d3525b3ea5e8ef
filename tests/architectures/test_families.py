"""The networks against second ones, written here from their equations, and against published code."""

import math
from functools import partial

import pytest
import torch
from networks import random_images, randomised
from torch.nn import functional as F

from robust_arch.architectures import ArchSpec, build
from robust_arch.errors import InputError

ACTIVATION = {
    "relu": lambda z: z.clamp(min=0),
    "silu": lambda z: z / (1 + torch.exp(-z)),
    "gelu": lambda z: z * (1 + torch.erf(z / math.sqrt(2))) / 2,
    "softplus": lambda z: torch.log(1 + torch.exp(z)),
}


def batch_norm(state, name, x):
    def channel(key):
        return state[f"{name}.{key}"][:, None, None]

    scale = channel("weight") / torch.sqrt(channel("running_var") + 1e-5)
    return (x - channel("running_mean")) * scale + channel("bias")


def pointwise(weight, x, stride):
    return torch.einsum("oc,bchw->bohw", weight[:, :, 0, 0], x[:, :, ::stride, ::stride])


def wide_block(state, name, x, widths, stride, act):
    c_in, c_out = widths
    entering = act(batch_norm(state, f"{name}.bn1", x))
    hidden = F.conv2d(entering, state[f"{name}.conv1.weight"], stride=stride, padding=1)
    hidden = act(batch_norm(state, f"{name}.bn2", hidden))
    branch = F.conv2d(hidden, state[f"{name}.conv2.weight"], padding=1)
    if c_in != c_out:
        return branch + pointwise(state[f"{name}.shortcut.weight"], entering, stride)
    if stride == 2:
        return branch + pointwise(state[f"{name}.shortcut.weight"], x, stride)
    return branch + x


def basic_block(state, name, x, widths, stride, act):
    h = act(batch_norm(state, f"{name}.bn1", F.conv2d(x, state[f"{name}.conv1.weight"], stride=stride, padding=1)))
    h = batch_norm(state, f"{name}.bn2", F.conv2d(h, state[f"{name}.conv2.weight"], padding=1))
    if widths[0] != widths[1] or stride == 2:
        x = batch_norm(state, f"{name}.shortcut.1", pointwise(state[f"{name}.shortcut.0.weight"], x, stride))
    return act(h + x)


def reference_logits(state, spec, x):
    act = ACTIVATION[spec.activation]
    h = F.conv2d(x, state["network.stem.weight"], padding=1)
    norm, block = partial(batch_norm, state, "network.bn"), wide_block
    if spec.family == "resnet":
        h, block = act(norm(h)), basic_block
    c_in = spec.stem_width
    for stage, (depth, width) in enumerate(zip(spec.depths, spec.widths, strict=True)):
        for i in range(depth):
            stride = 2 if stage > 0 and i == 0 else 1
            h = block(state, f"network.stages.{stage}.{i}", h, (c_in, width), stride, act)
            c_in = width
    if spec.family == "wide_resnet":
        h = act(norm(h))
    pooled = h.sum(dim=(2, 3)) / (h.shape[2] * h.shape[3])
    return pooled @ state["network.fc.weight"].T + state["network.fc.bias"]


SPECS = [
    ArchSpec("wide_resnet", (1, 2, 1), (16, 16, 16)),  # no width changes: shortcuts of raw x at stride 2
    ArchSpec("wide_resnet", (2, 2, 2), (6, 6, 9)),  # the first stage changes width without a stride
    ArchSpec("wide_resnet", (2, 1, 3), (8, 12, 5), stem_width=8),  # the last stage is narrower
    ArchSpec("wide_resnet", (1, 1, 1), (4, 7, 7), activation="silu"),
    ArchSpec("wide_resnet", (1, 2, 1), (4, 7, 3), activation="gelu"),
    ArchSpec("wide_resnet", (1, 2, 1), (4, 4, 3), activation="softplus"),
    ArchSpec("wide_resnet", (2, 1, 1), (4, 7, 3), dropout=0.5),  # inactive in evaluation mode
    ArchSpec("resnet", (1, 2, 1, 1), (8, 8, 8, 8), stem_width=8),  # projections by stride alone
    ArchSpec("resnet", (2, 1, 1, 2), (6, 9, 12, 5), stem_width=4),  # the first stage projects without a stride
    ArchSpec("resnet", (1, 1, 2, 1), (4, 7, 7, 3), stem_width=4, activation="silu"),
]


def name_of(spec):
    return f"{spec.family}-{spec.widths}-{spec.activation}-{spec.dropout}"


@pytest.mark.parametrize("image_shape", [(3, 8, 8), (1, 7, 10), (2, 1, 1)], ids=str)
@pytest.mark.parametrize("spec", SPECS, ids=name_of)
def test_logits_equal_a_second_implementation(spec, image_shape):
    net = randomised(build(spec, 5, image_shape, seed=0))
    x = random_images(3, *image_shape)
    with torch.no_grad():
        expected = reference_logits(net.state_dict(), spec, x)
        torch.testing.assert_close(net(x), expected, rtol=1e-10, atol=1e-10)


def test_normalisation_precedes_the_stem():
    spec = SPECS[1]
    net = randomised(build(spec, 5, (2, 6, 6), mean=(0.2, 0.4), std=(0.5, 0.25), seed=0))
    x = random_images(2, 2, 6, 6)
    normalised = torch.stack([(x[:, 0] - 0.2) / 0.5, (x[:, 1] - 0.4) / 0.25], dim=1)
    with torch.no_grad():
        expected = reference_logits(net.state_dict(), spec, normalised)
        # mean and std are stored in float32
        torch.testing.assert_close(net(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spec", SPECS, ids=name_of)
def test_every_parameter_takes_part(spec):
    # a parameter without gradient would stop distributed training
    net = build(spec, 5, (3, 16, 16), seed=0)
    net(random_images(8, 3, 16, 16).float()).square().sum().backward()
    unused = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert unused == []


@pytest.mark.parametrize(
    ("spec", "convolutions"),
    [  # the stem, two of each block, and shortcuts: of every stage here, of all stages but the first there
        (ArchSpec("wide_resnet", (1, 1, 1), (64, 96, 96)), 1 + 3 * 2 + 3),
        (ArchSpec("resnet", (1, 1, 1, 1), (64, 96, 96, 96), stem_width=64), 1 + 4 * 2 + 3),
    ],
    ids=["wide_resnet", "resnet"],
)
def test_convolutions_start_at_the_published_scale(spec, convolutions):
    net = build(spec, 10, (3, 8, 8), seed=0)
    weights = [p.detach() for p in net.parameters() if p.ndim == 4]
    assert len(weights) == convolutions
    for weight in weights:
        c_out, _, kh, kw = weight.shape
        expected = math.sqrt(2 / (kh * kw * c_out))
        # the relative standard error of a normal sample's deviation is 1 / sqrt(2 n); 5 of them
        assert weight.std().item() == pytest.approx(expected, rel=5 / math.sqrt(2 * weight.numel()))
        assert abs(weight.mean().item()) < 5 * expected / math.sqrt(weight.numel())


def test_norms_and_head_start_as_published():
    net = build(ArchSpec("wide_resnet", (1, 1, 1), (8, 8, 400)), 10, (3, 8, 8), seed=0)
    affine = {name: p for name, p in net.named_parameters() if p.ndim == 1}
    assert len(affine) == 2 * (2 * 3 + 1) + 1
    for name, parameter in affine.items():
        expected = 1.0 if name.endswith("weight") else 0.0
        assert torch.equal(parameter, torch.full_like(parameter, expected)), name
    # the framework's default for a linear layer is uniform within 1 / sqrt(inputs)
    bound = 1 / math.sqrt(400)
    weight = net.network.fc.weight.detach()
    assert weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=5 / math.sqrt(2 * weight.numel()))


def test_dropout_acts_in_training_only():
    net = build(ArchSpec("wide_resnet", (1, 1, 1), (8, 8, 8), dropout=0.5), 4, (1, 8, 8), seed=0)
    # from here on only the dropout distinguishes the two modes
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.track_running_stats, module.running_mean, module.running_var = False, None, None
    x = random_images(4, 1, 8, 8).float()
    assert not torch.equal(net.train()(x), net(x))
    assert torch.equal(net.eval()(x), net(x))


def test_a_seed_fixes_the_weights_and_leaves_the_global_state():
    spec = SPECS[0]
    before = torch.get_rng_state()
    first, second, other = (build(spec, seed=seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["network.stem.weight"], other["network.stem.weight"])


def test_without_a_seed_the_global_state_decides():
    with torch.random.fork_rng():
        torch.manual_seed(5)
        drawn = [build(SPECS[0]).network.stem.weight.detach() for _ in range(2)]
    assert torch.equal(drawn[0], build(SPECS[0], seed=5).network.stem.weight)
    assert not torch.equal(drawn[0], drawn[1])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mean": (0.5,)}, r"mean = \[0\.5\]: .*3 channels"),
        ({"std": (0.5, 0.5)}, r"std = \[0\.5, 0\.5\]: .*3 channels"),
        ({"std": (0.5, 0.0, 0.5)}, r"std = \[0\.5, 0\.0, 0\.5\]: expected numbers greater than 0"),
    ],
)
def test_bad_normalisation_is_named(given, message):
    with pytest.raises(InputError, match=message):
        build(SPECS[0], **given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"depths": (2, 2, 2), "widths": (16, 32, 64)},
            r"arch\.depths = \(2, 2, 2\): expected 4 stages, as family",
        ),
        ({"dropout": 0.1}, r"arch\.dropout = 0\.1: expected 0, as family resnet has no dropout"),
        ({"options": {"base_width": 128}}, r"arch\.options\.base_width = 128: expected 64 for basic blocks"),
        ({"options": {"block": "wide"}}, r"arch\.options\.block = 'wide': expected one of basic, bottleneck"),
    ],
)
def test_what_the_family_does_not_have_is_named(change, message):
    with pytest.raises(InputError, match=message):
        ArchSpec(**{"family": "resnet", "depths": (2, 2, 2, 2), "widths": (8, 8, 8, 8), **change})


def slope_between(f, x, step):
    return (f(x + step) - f(x)).flatten(1).norm(dim=1) / step.flatten(1).norm(dim=1)


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec.family == "resnet"], ids=name_of)
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
