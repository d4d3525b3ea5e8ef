"""Operator norms against singular values of dense matrices, against numbers by hand, against derivatives."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from robust_arch.architectures import ArchSpec, build
from robust_arch.architectures.build import Normalize
from robust_arch.architectures.layers import ACTIVATIONS, GlobalAveragePool, activation_lipschitz, make_activation
from robust_arch.errors import InputError
from robust_arch.evaluation.operator_norms import conv_norm, operator_norms

EXACT = {"tolerance": 1e-11, "max_steps": 20_000}


def random_conv(*args, seed=0, **kwargs):
    conv = nn.Conv2d(*args, **kwargs).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        conv.weight.copy_(torch.randn(conv.weight.shape, generator=generator, dtype=torch.float64))
    return conv


def dense_norm(conv, size):
    """The largest singular value of the matrix whose columns are the images of unit vectors."""
    columns = []
    for position in range(math.prod(size)):
        unit = torch.zeros(math.prod(size), dtype=torch.float64)
        unit[position] = 1.0
        with torch.no_grad():
            columns.append((conv(unit.view(1, *size)) - conv(torch.zeros(1, *size).double())).flatten().numpy())
    return np.linalg.svd(np.stack(columns, axis=1), compute_uv=False)[0]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("size", [(6, 6), (6, 5), (1, 2)])
@pytest.mark.parametrize("channels", [(3, 5), (4, 2)])
def test_a_convolution_has_the_norm_of_its_matrix(channels, size, kernel, stride):
    conv = random_conv(*channels, kernel, stride, padding=kernel // 2, bias=False)
    size = (channels[0], *size)
    norm, converged = conv_norm(conv, size, **EXACT)
    assert converged
    assert norm == pytest.approx(dense_norm(conv, size), rel=1e-7)


@pytest.mark.parametrize(
    ("args", "settings"),
    [
        ((4, 6, 3), {"padding": 1, "groups": 2}),
        ((4, 4, 3, 2), {"padding": 1, "groups": 4}),
        ((2, 3, 3), {"padding": 2, "dilation": 2}),
        ((2, 3, (3, 1), (2, 1)), {"padding": (0, 1)}),
        ((2, 3, 2, 3), {}),  # columns that no position of the kernel reaches
        ((2, 3, 3, 1, 1), {"bias": True}),  # a constant does not change a difference
    ],
)
def test_every_setting_of_a_convolution_is_regarded(args, settings):
    conv = random_conv(*args, **settings)
    size = (args[0], 6, 5)
    assert conv_norm(conv, size, **EXACT)[0] == pytest.approx(dense_norm(conv, size), rel=1e-7)


def test_small_convolutions_by_hand():
    ones = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    nn.init.ones_(ones.weight)
    # each of the 2x2 outputs is the sum of all four inputs: the matrix of ones, of norm 4
    assert conv_norm(ones, (1, 2, 2)) == (pytest.approx(4.0), True)
    # of a single pixel only the kernel's centre is left
    assert conv_norm(ones, (1, 1, 1)) == (pytest.approx(1.0), True)
    # on a 1x2 image the matrix is [[1, 1], [1, 1]]
    assert conv_norm(ones, (1, 1, 2)) == (pytest.approx(2.0), True)
    # inside a large image nine ones sum up; the border keeps the norm below: 1 + 2 cos(pi / (n + 1)) a dimension
    expected = (1 + 2 * math.cos(math.pi / 11)) ** 2
    assert conv_norm(ones, (1, 10, 10), **EXACT)[0] == pytest.approx(expected, rel=1e-9)
    nn.init.zeros_(ones.weight)
    assert conv_norm(ones, (1, 4, 4)) == (0.0, True)


def test_estimates_rise_to_the_norm_and_say_whether_they_arrived():
    conv = random_conv(3, 4, 3, padding=1)
    true = dense_norm(conv, (3, 6, 6))
    estimates = [conv_norm(conv, (3, 6, 6), tolerance=0, max_steps=steps) for steps in (1, 2, 5, 20, 50)]
    norms = [norm for norm, _ in estimates]
    assert norms == sorted(norms)
    assert norms[0] < 0.95 * true
    assert all(norm < true for norm in norms)
    assert not any(converged for _, converged in estimates)
    loose, converged = conv_norm(conv, (3, 6, 6), tolerance=0.01)
    assert converged
    assert 0.8 * true < loose < true


def test_the_start_is_seeded_and_the_global_random_state_left_alone():
    conv = random_conv(3, 4, 3, padding=1)
    state = torch.get_rng_state()
    few = {"tolerance": 0, "max_steps": 3}
    first, again = (conv_norm(conv, (3, 6, 6), seed=1, **few) for _ in range(2))
    assert first == again != conv_norm(conv, (3, 6, 6), seed=2, **few)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("settings", [{"padding": 1, "padding_mode": "circular"}, {"padding": "same"}])
def test_padding_that_is_not_a_number_of_zeros_is_refused(settings):
    with pytest.raises(InputError, match="padded with a number of zeros"):
        conv_norm(nn.Conv2d(1, 1, 3, **settings), (1, 4, 4))


def only(net, image_shape=(2, 4, 6)):
    """Name to norm of the layers, where no iteration is involved."""
    found = operator_norms(net, image_shape).values()
    assert all(layer.converged for layer in found)
    return {layer.name: layer.norm for layer in found}


def test_layers_by_hand():
    bn = nn.BatchNorm2d(2)
    with torch.no_grad():
        bn.weight.copy_(torch.tensor([3.0, -4.0]))
        bn.running_var.copy_(torch.tensor([1.0, 4.0]))
    linear = nn.Linear(2, 3)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[0.0, 3.0], [0.0, 4.0], [2.0, 0.0]]))
    net = nn.Sequential(
        Normalize([0.1, 0.2], [0.5, 0.25]), bn, nn.Dropout(0.5), nn.Identity(), GlobalAveragePool(), linear
    )
    assert only(net) == {
        "0": 4.0,
        "1": pytest.approx(3 / math.sqrt(1 + 1e-5)),  # 4 / sqrt(4) is smaller
        "2": 1.0,
        "3": 1.0,
        "4": pytest.approx(1 / math.sqrt(24)),
        "5": pytest.approx(5.0),  # columns (3, 4) and 2, orthogonal
    }
    without_parameters = nn.BatchNorm2d(2, affine=False)
    without_parameters.running_var.copy_(torch.tensor([0.25, 1.0]))
    found = only(nn.Sequential(nn.Conv2d(2, 2, 1), without_parameters))
    assert found["1"] == pytest.approx(1 / math.sqrt(0.25 + 1e-5))


@pytest.mark.parametrize("layer", [nn.GroupNorm(1, 2), nn.BatchNorm2d(2, track_running_stats=False), nn.MaxPool2d(2)])
def test_a_layer_whose_norm_is_not_known_is_named(layer):
    with pytest.raises(InputError, match=f"1 = '{type(layer).__name__}'"):
        operator_norms(nn.Sequential(nn.Conv2d(2, 2, 1), layer), (2, 4, 4))


def test_each_layer_is_measured_at_the_size_it_works_on():
    net = build(ArchSpec("wide_resnet", (1, 1, 1), (3, 3, 4), stem_width=2), 3, (1, 6, 6), seed=0)
    found = {layer.name: layer.norm for layer in operator_norms(net, (1, 6, 6), **EXACT).values()}
    convs = {name: module for name, module in net.named_modules() if isinstance(module, nn.Conv2d)}
    sizes = {"network.stem": (1, 6, 6)}
    for stage, (conv1, conv2) in enumerate([((2, 6, 6), (3, 6, 6)), ((3, 6, 6), (3, 3, 3)), ((3, 3, 3), (4, 2, 2))]):
        block = f"network.stages.{stage}.0."
        sizes |= {f"{block}conv1": conv1, f"{block}conv2": conv2, f"{block}shortcut": conv1}
    assert set(sizes) == set(convs)
    for name, size in sizes.items():
        assert found[name] == pytest.approx(dense_norm(convs[name].double(), size), rel=1e-6), name
    assert found["network.pool"] == pytest.approx(1 / 2)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_constant_of_an_activation_is_its_steepest_slope(name):
    z = torch.linspace(-30, 30, 600_001, dtype=torch.float64, requires_grad=True)
    activation = make_activation(name)
    if isinstance(activation, nn.Module):
        activation.double()
    (slopes,) = torch.autograd.grad(activation(z).sum(), z)
    constant = activation_lipschitz(activation)
    assert float(slopes.abs().max()) <= constant * (1 + 1e-15)
    assert float(slopes.abs().max()) == pytest.approx(constant, rel=1e-8)
