"""RobustResNet against a second implementation, written here from the published description, and published costs."""

import pytest
import torch
from networks import random_images, randomised
from torch.nn import functional as F

from robust_arch.architectures import PRESETS, ArchSpec, build, cost
from robust_arch.errors import InputError
from robust_arch.interop import load_published
from robust_arch.interop.published import published_state

SMALL = {"scales": 3, "base_width": 40, "cardinality": 2, "se_reduction": 4}
SPECS = [
    ArchSpec("robust_resnet", (2, 1, 2), (8, 12, 12), options=SMALL),
    ArchSpec("robust_resnet", (1, 2, 1), (4, 4, 4), options=SMALL),  # the first shortcut is the identity, too
    ArchSpec("robust_resnet", (2, 2, 1), (8, 12, 12), options={**SMALL, "preactivated": True}),
    ArchSpec("robust_resnet", (2, 1, 1), (8, 16, 8), activation="silu"),
]

# README of zhichao-lu/robust-residual-network: parameters in millions, and G of a counter that adds element-wise work
PUBLISHED = {
    "robust_resnet_a1": (19.2, 5.11),
    "robust_resnet_a2": (39.0, 10.8),
    "robust_resnet_a3": (75.9, 19.9),
    "robust_resnet_a4": (147, 39.4),
}
UNIFORM = {(4, 10): (39.6, 6.00), (5, 12): (70.5, 10.6), (7, 14): (133, 19.6), (11, 16): (270, 39.3)}


def uniform(depth, widen):
    return ArchSpec("robust_resnet", (depth,) * 3, (16 * widen, 32 * widen, 64 * widen))


def unused_in_published_code(spec):
    """Parameters of the first BatchNorm in all blocks but the first of each stage."""
    return sum(2 * 4 * width * (depth - 1) for depth, width in zip(spec.depths, spec.widths, strict=True))


CASES = [(PRESETS[name], published) for name, published in PUBLISHED.items()]
CASES += [(uniform(*shape), published) for shape, published in UNIFORM.items()]


@pytest.mark.parametrize(("spec", "published"), CASES, ids=lambda value: str(value)[:60])
def test_costs_are_the_published_ones(spec, published):
    params, gmacs = published
    result = cost(spec)
    assert float(f"{(result.params + unused_in_published_code(spec)) / 1e6:.3g}") == params
    # element-wise work is at most one percent of these networks
    assert float(f"{result.macs / 1e9:.3g}") <= gmacs <= result.macs / 1e9 * 1.01


def batch_norm(state, name, x):
    names = ("running_mean", "running_var", "weight", "bias")
    return F.batch_norm(x, *(state[f"{name}.{key}"] for key in names))


def block(state, name, x, stride, spec, act):
    options = {"scales": 8, "cardinality": 4, "preactivated": False, **dict(spec.options)}
    entering = act(batch_norm(state, f"{name}.bn1", x)) if f"{name}.bn1.weight" in state else None
    h = F.conv2d(entering if options["preactivated"] else x, state[f"{name}.conv1.weight"])
    parts = act(batch_norm(state, f"{name}.bn2", h)).tensor_split(options["scales"], dim=1)
    outs = []
    for i, part in enumerate(parts[:-1]):
        if stride == 1 and i > 0:
            part = part + outs[-1]
        h = F.conv2d(part, state[f"{name}.conv2.{i}.weight"], None, stride, 1, groups=options["cardinality"])
        outs.append(act(batch_norm(state, f"{name}.bn3.{i}", h)))
    outs.append(F.avg_pool2d(parts[-1], 3, stride, 1) if stride == 2 else parts[-1])
    h = F.conv2d(torch.cat(outs, dim=1), state[f"{name}.conv3.weight"])
    shortcut = x
    if f"{name}.shortcut.weight" in state:
        shortcut = F.conv2d(entering, state[f"{name}.shortcut.weight"], None, stride)
    excited = batch_norm(state, f"{name}.se_bn", h)
    squeezed = (excited.mean((2, 3)) @ state[f"{name}.se.fc.0.weight"].T).clamp(min=0)
    factors = torch.sigmoid(squeezed @ state[f"{name}.se.fc.2.weight"].T)
    return h + shortcut + excited * factors[:, :, None, None]


def reference_logits(state, spec, x):
    act = {"relu": F.relu, "silu": F.silu}[spec.activation]
    h = F.conv2d(x, state["network.stem.weight"], None, 1, 1)
    for stage, depth in enumerate(spec.depths):
        for i in range(depth):
            h = block(state, f"network.stages.{stage}.{i}", h, 2 if stage > 0 and i == 0 else 1, spec, act)
    h = act(batch_norm(state, "network.bn", h)).mean(dim=(2, 3))
    return h @ state["network.fc.weight"].T + state["network.fc.bias"]


@pytest.mark.parametrize("image_shape", [(3, 8, 8), (1, 7, 10)], ids=str)
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.depths}-{spec.widths}-{spec.activation}")
def test_logits_equal_a_second_implementation(spec, image_shape):
    net = randomised(build(spec, 5, image_shape, seed=0))
    x = random_images(3, *image_shape)
    with torch.no_grad():
        torch.testing.assert_close(net(x), reference_logits(net.state_dict(), spec, x), rtol=1e-9, atol=1e-9)


def test_the_first_batch_norm_is_where_something_reads_it():
    with_bn1 = [[hasattr(block, "bn1") for block in stage] for stage in build(SPECS[0], 5, seed=0).network.stages]
    assert with_bn1 == [[True, False], [True], [True, False]]
    assert all(hasattr(block, "bn1") for stage in build(SPECS[2], 5, seed=0).network.stages for block in stage)


def test_weights_of_published_code_load_without_what_it_never_uses():
    spec = SPECS[0]
    net = randomised(build(spec, 5, (3, 8, 8), seed=0)).float()
    state = published_state(net, spec)
    assert {
        "stem_conv.weight",
        "blocks.1.layer.0.shortcut.0.weight",
        "blocks.0.layer.1.se.fc.0.weight",
        "norm1.bias",
    } <= set(state)
    for name in ("weight", "bias", "running_mean", "running_var"):
        state[f"blocks.2.layer.1.bn1.{name}"] = torch.ones(48)
    x = random_images(2, 3, 8, 8).float()
    with torch.no_grad():
        assert torch.equal(load_published({"state_dict": state}, spec)(x), net(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": {"scales": 1}}, r"arch\.options\.scales = 1: expected an integer of at least 2"),
        ({"options": {"preactivated": 1}}, r"arch\.options\.preactivated = 1: expected true or false"),
        ({"dropout": 0.1}, r"arch\.dropout = 0\.1: expected 0, as family robust_resnet"),
    ],
)
def test_what_the_family_does_not_have_is_named(change, message):
    with pytest.raises(InputError, match=message):
        ArchSpec(**{"family": "robust_resnet", "depths": (1, 1, 1), "widths": (8, 8, 8), **change})
