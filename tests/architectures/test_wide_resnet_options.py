"""Blocks, activations, dropout and squeeze-excitation of WideResNets against hand-computed and published values."""

import math

import pytest
import torch
from networks import random_images, randomised
from torch import nn
from torch.nn import functional as F

from robust_arch.architectures import PRESETS, ArchSpec, arch_name, build, cost
from robust_arch.architectures.family import BoundedNetwork, family_of
from robust_arch.errors import InputError

BASE = {"family": "wide_resnet", "depths": (1, 1, 1), "widths": (4, 8, 8)}

# from a table of 15,625 WideResNets in ZaberKo/NARes-Train: depths, widths, params and "FLOPs" in millions, which are
# MACs of convolutions and the linear layer + elements that enter each BatchNorm + the last width
PUBLISHED = [
    ((4, 4, 4), (128, 256, 512), 23.354842, 3361.936896),
    ((4, 4, 4), (128, 256, 640), 32.975578, 3977.517952),
]


@pytest.mark.parametrize(("depths", "widths", "params", "flops"), PUBLISHED)
def test_published_costs(depths, widths, params, flops):
    entering = 16 * 1024 + widths[0] * 1024 + widths[1] * 256  # BatchNorm at the entrance of each stage
    entering += (
        sum((2 * d - 1) * w * p for d, w, p in zip(depths, widths, (1024, 256, 64), strict=True)) + 64 * widths[2]
    )
    result = cost(ArchSpec("wide_resnet", depths, widths))
    assert result.params == round(params * 1e6)
    assert result.macs + entering + widths[2] == round(flops * 1e6)


def test_a_hand_computed_network_of_bottlenecks_with_squeeze_excitation():
    # 1x4x4 images, 2 classes, stem 2; stages of widths 1, 1, 1: 4 channels behind each. Stage 1 (2 to 4, 4x4): BN 4 + 2
    # + 2, convolutions 2 + 9 + 4, shortcut 8; SE of 4 to 1 to 4: 5 + 8. Stages 2 (4 to 4, 2x2) and 3 (1x1): BN 8 + 2
    # + 2, convolutions 4 (at the size before) + 9 + 4, shortcut 16, SE 13. Stem 18; head BN 8, linear 10.
    options = {"block": "bottleneck", "se_ratio": 0.25}
    result = cost(ArchSpec("wide_resnet", (1, 1, 1), (1, 1, 1), stem_width=2, options=options), 2, (1, 4, 4))
    assert result.stage_params == (8 + 15 + 8 + 13, 12 + 17 + 16 + 13, 58)
    assert result.stage_macs == (23 * 16 + 8, 4 * 16 + 29 * 4 + 8, 4 * 4 + 29 + 8)
    assert result.params == 44 + 58 + 58 + 18 + 18


def test_ra_wrn_70_16_is_the_published_one(published):
    (row,) = published["robust_principles"]["rows"]
    spec = ArchSpec(
        "wide_resnet",
        row["depths"],
        row["widths"],
        stem_width=row["stem"],
        activation=row["activation"].lower(),
        options={"se_ratio": row["se_ratio"], "padding": "same"},
    )
    assert PRESETS["ra_wrn_70_16"] == spec
    assert arch_name(spec) == "ra_wrn_70_16"
    # the paper keeps the budget of WRN-70-16, 267 M parameters, to within half a percent
    assert cost(spec).params == pytest.approx(266_796_506, rel=0.005)


def test_each_stage_has_its_own_blocks_activation_and_dropout():
    options = {
        "block": ["basic", "bottleneck", "basic"],
        "activation": ["relu", "silu", "prelu"],
        "dropout": [0, 0.5, 0],
    }
    net = build(ArchSpec(**BASE, activation="gelu", options=options), 5, (3, 8, 8), seed=0).network
    first, second, third = (stage[0] for stage in net.stages)
    assert (first.activation1, second.activation3, net.activation) == (F.relu, F.silu, F.gelu)
    assert isinstance(third.activation2, nn.PReLU)
    assert [block.dropout.p for block in (first, second, third)] == [0, 0.5, 0]
    # 4 channels behind a basic block of width 4, 32 behind a bottleneck of width 8
    assert [block.bn1.num_features for block in (second, third)] == [4, 32]


def test_squeeze_excitation_scales_each_channel_of_the_branch():
    spec = ArchSpec(**BASE, options={"se_ratio": 0.5})
    net = randomised(build(spec, 5, (3, 8, 8), seed=0))
    block, x = net.network.stages[1][0], random_images(2, 4, 6, 6)
    with torch.no_grad():
        branch = block.branch(F.relu(block.bn1(x)))
        first, second = block.se.fc[0], block.se.fc[2]
        hidden = (branch.mean((2, 3)) @ first.weight.T + first.bias).clamp(min=0)
        factors = 1 / (1 + torch.exp(-(hidden @ second.weight.T + second.bias)))
        shortcut = F.conv2d(F.relu(block.bn1(x)), block.shortcut.weight, None, 2)
        torch.testing.assert_close(block(x), branch * factors[:, :, None, None] + shortcut)


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
@pytest.mark.parametrize(("side", "first"), [(8, 0), (9, 1), (1, 1)])
def test_same_padding_begins_at_the_first_pixel_of_an_even_size_and_before_that_of_an_odd_one(side, first, block):
    spec = ArchSpec(**BASE, options={"padding": "same", "block": block})
    inside = build(spec, 5, (3, 8, 8), seed=0).network.stages[1][0]
    convolution = inside.conv1 if block == "basic" else inside.conv2
    x = random_images(2, convolution.in_channels, side, side).float()
    with torch.no_grad():
        out = convolution(inside.padding(x))
        padded = torch.zeros(2, convolution.in_channels, side + 4, side + 4)
        padded[:, :, 2 : side + 2, 2 : side + 2] = x
        assert out.shape[2:] == (-(-side // 2), -(-side // 2))
        for i, j in ((0, 0), (len(out[0, 0]) - 1, len(out[0, 0]) - 1)):
            top, left = 2 + 2 * i - first, 2 + 2 * j - first
            window = padded[:, None, :, top : top + 3, left : left + 3]
            by_hand = (window * convolution.weight).sum((2, 3, 4))
            torch.testing.assert_close(out[:, :, i, j], by_hand, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "bounded"),
    [({}, True), ({"block": "bottleneck"}, True), ({"padding": "same"}, True), ({"se_ratio": 1}, False)],
)
def test_only_networks_without_products_of_features_have_lipschitz_bounds(options, bounded):
    assert isinstance(build(ArchSpec(**BASE, options=options), 5, (3, 8, 8)).network, BoundedNetwork) == bounded


@pytest.mark.parametrize("padding", ["symmetric", "same"])
def test_a_bottleneck_network_stretches_no_change_by_more_than_its_bound(padding):
    options = {"block": "bottleneck", "padding": padding}
    spec = ArchSpec("wide_resnet", (1, 2, 1), (2, 3, 3), stem_width=3, activation="mish", options=options)
    net = randomised(build(spec, 5, (3, 8, 8), seed=0)).network
    sizes = {}
    handles = [
        layer.register_forward_hook(lambda m, a, _: sizes.update({m: a[0].shape[1:]})) for layer in net.modules()
    ]
    x = random_images(32, 3, 8, 8)
    with torch.no_grad():
        net(x)
        for handle in handles:
            handle.remove()

        def norm(layer):
            zero = layer(torch.zeros(1, *sizes[layer], dtype=torch.float64))
            basis = torch.eye(math.prod(sizes[layer]), dtype=torch.float64).view(-1, *sizes[layer])
            return torch.linalg.matrix_norm((layer(basis) - zero).flatten(1), 2).item()

        bounds = net.lipschitz_bounds(norm)
        parts = [net.stem, *net.stages, lambda h: net.fc(net.pool(net.activation(net.bn(h))))]
        for part, bound in zip(parts, bounds.values(), strict=True):
            step = 1e-3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
            change = (part(x + step) - part(x)).flatten(1).norm(dim=1) / step.flatten(1).norm(dim=1)
            assert 0 < change.max().item() <= bound * (1 + 1e-6)
            x = part(x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block": "wide"}, r"arch\.options\.block = 'wide': expected one of basic, bottleneck"),
        ({"block": ["basic", "basic"]}, r"arch\.options\.block = \['basic', 'basic'\]: .* 3, one per stage"),
        ({"activation": ["relu", "relu", "swish"]}, r"arch\.options\.activation = 'swish': expected one of relu"),
        ({"dropout": [0, 0, 1]}, r"arch\.options\.dropout = 1: .*below 1"),
        ({"se_ratio": -1}, r"arch\.options\.se_ratio = -1"),
        ({"padding": "valid"}, r"arch\.options\.padding = 'valid': expected one of symmetric, same"),
        ({"stem": "mnist"}, r"arch\.options\.stem = 'mnist': expected one of cifar, imagenet"),
        ({"blok": "basic"}, r"arch\.options\.blok: unknown key; did you mean block"),
        (3, r"arch\.options = 3: expected a mapping"),
        ({"block": [["basic"], "basic", "basic"]}, r"arch\.options\.block = .*: expected text, a number"),
        ({"dropout": [0, None, float("nan")]}, r"arch\.options\.dropout = nan: expected a number"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        ArchSpec(**BASE, options=options)


def test_options_at_their_defaults_are_no_part_of_an_architecture():
    options = {"block": ["basic"] * 3, "se_ratio": 0, "activation": None}
    plain, spelt = ArchSpec(**BASE), ArchSpec(**BASE, options=options)
    assert plain == spelt
    assert "options" not in spelt.to_dict()
    assert family_of(spelt).cost_terms((1, 1, 1), (4, 8, 8), 16, 10, (3, 32, 32)).params == cost(plain).params
