"""Activations against their definitions, and what they learn."""

import math

import pytest
import torch
from torch import nn

from robust_arch.architectures import ArchSpec, build, cost
from robust_arch.architectures.layers import ACTIVATIONS, activation_lipschitz, activation_params, make_activation

DEFINITIONS = {
    "relu": lambda z: max(z, 0.0),
    "silu": lambda z: z / (1 + math.exp(-z)),
    "gelu": lambda z: z * (1 + math.erf(z / math.sqrt(2))) / 2,
    "softplus": lambda z: math.log1p(math.exp(z)),
    "leaky_relu": lambda z: max(z, 0.01 * z),
    "prelu": lambda z: max(z, 0.25 * z),
    "mish": lambda z: z * math.tanh(math.log1p(math.exp(z))),
    "psilu": lambda z: z / (1 + math.exp(-z)),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_values_are_those_of_the_definition(name):
    z = torch.linspace(-12, 12, 1001, dtype=torch.float64)
    activation = make_activation(name)
    if isinstance(activation, nn.Module):
        activation.double()
    expected = torch.tensor([DEFINITIONS[name](value) for value in z.tolist()], dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(activation(z), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("slope", [-3.0, 0.5, 2.0])
def test_learned_slopes_change_the_bound_as_they_change_the_function(slope):
    z = torch.linspace(-20, 20, 8001, dtype=torch.float64, requires_grad=True)
    for activation in (make_activation("prelu").double(), make_activation("psilu").double()):
        with torch.no_grad():
            next(activation.parameters()).fill_(slope)
        (slopes,) = torch.autograd.grad(activation(z).sum(), z)
        assert slopes.abs().max().item() == pytest.approx(activation_lipschitz(activation), rel=1e-3)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_network_has_one_learned_slope_per_activation(name):
    spec = ArchSpec("wide_resnet", (1, 2, 1), (4, 8, 8), activation=name)
    # two per block and one in the head
    expected = cost(ArchSpec("wide_resnet", (1, 2, 1), (4, 8, 8))).params + 9 * activation_params(name)
    assert sum(parameter.numel() for parameter in build(spec).parameters()) == expected == cost(spec).params
    assert activation_params(name) == (name in ("prelu", "psilu"))
