"""Layers that the networks of all families share, besides torch's own."""

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Activation = Callable[[Tensor], Tensor]

ACTIVATIONS = ("relu", "silu", "gelu", "softplus", "leaky_relu", "prelu", "mish", "psilu")
_WITH_SLOPE = ("prelu", "psilu")

# the largest |f'| of each activation f, over all real numbers
_LIPSCHITZ: dict[Activation, float] = {
    F.relu: 1.0,
    # f' is the sigmoid; 1 is its supremum
    F.softplus: 1.0,
    # f' = s + z s (1 - s) with s the sigmoid; f'' = 0 where z tanh(z / 2) = 2, and there f' = 1/2 + z / 4.
    # f'(-z) = 1 - f'(z), here and for gelu, so the lowest slope is smaller in size
    F.silu: 0.5 + 2.39935728051547 / 4,
    # f' = Phi(z) + z phi(z); f'' = (2 - z^2) phi(z) = 0 at z = sqrt(2)
    F.gelu: (1 + math.erf(1)) / 2 + math.exp(-1) / math.sqrt(math.pi),
    F.leaky_relu: 1.0,
    # f = z tanh(softplus(z)); f'' = 0 at z = 1.49057117948546, found numerically
    F.mish: 1.08849816125172787,
}


class ParametricSiLU(nn.Module):
    """z sigmoid(a z) with a learned a, one number that starts at 1 (Dai et al. 2022)."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.ones(()))

    def forward(self, z: Tensor) -> Tensor:
        """z: any shape."""
        out: Tensor = z * torch.sigmoid(self.slope * z)
        return out


def make_activation(name: str) -> Activation:
    """The activation of that name, of ACTIVATIONS: a function, or a module where it learns one number.

    LeakyReLU has slope 0.01 below 0; PReLU one slope for all channels, which starts at 0.25.
    """
    modules: dict[str, type[nn.Module]] = {"prelu": nn.PReLU, "psilu": ParametricSiLU}
    if name in modules:
        return modules[name]()
    function: Activation = getattr(F, name)
    return function


def activation_params(name: str) -> int:
    """How many numbers one activation of that name learns."""
    return int(name in _WITH_SLOPE)


def activation_copies(name: str) -> int:
    """How many tensors of its own size the backward pass of an activation and of the convolution after it keep."""
    # ReLU keeps its output, which the convolution keeps anyway; the others also keep their input, and the parametric
    # SiLU the sigmoid
    return {"relu": 1, "psilu": 3}.get(name, 2)


def activation_only(name: str) -> int:
    """How many tensors of its own size the backward pass of an activation alone keeps, before no convolution."""
    return max(1, activation_copies(name) - 1)


def activation_lipschitz(activation: Activation) -> float:
    """The Lipschitz constant of what `make_activation` returns; KeyError for another function."""
    if isinstance(activation, nn.PReLU):
        return max(1.0, activation.weight.abs().max().item())
    # with u = a z the slope of z sigmoid(a z) is that of SiLU at u, whatever a is
    return _LIPSCHITZ[F.silu if isinstance(activation, ParametricSiLU) else activation]


def stage_bounds(stages: nn.Sequential, norm: Callable[[nn.Module], float]) -> dict[str, float]:
    """Lipschitz bounds of "stage 1", ...: each the product over its blocks' `lipschitz_bound`."""
    return {
        f"stage {i}": math.prod(cast(Any, block).lipschitz_bound(norm) for block in cast(nn.Sequential, stage))
        for i, stage in enumerate(stages, start=1)
    }


class GlobalAveragePool(nn.Module):
    """The mean of each channel: (B, C, H, W) to (B, C)."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W)."""
        return torch.mean(x, dim=(2, 3))


class SamePadding(nn.Module):
    """The zeros before a 3x3 convolution at stride 2 as TensorFlow adds them: one row and one column at the end.

    Odd sizes get them at the beginning too. (B, C, H, W) to (B, C, H + 1 + H % 2, W + 1 + W % 2).
    """

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W)."""
        return F.pad(x, (x.shape[3] % 2, 1, x.shape[2] % 2, 1))


class SqueezeExcitation(nn.Module):
    """x times a factor in (0, 1) per channel, from the channels' means by two linear layers (Hu et al. 2018)."""

    def __init__(self, channels: int, squeezed: int, *, bias: bool = True) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(channels, squeezed, bias=bias),
            nn.ReLU(),
            nn.Linear(squeezed, channels, bias=bias),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W)."""
        factors = self.fc(torch.mean(x, dim=(2, 3))).to(x.dtype)
        out: Tensor = x * factors[:, :, None, None]
        return out
