"""Layers that the networks of all families share, besides torch's own."""

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Activation = Callable[[Tensor], Tensor]

# the largest |f'| of each activation f, over all real numbers
_LIPSCHITZ: dict[Activation, float] = {
    F.relu: 1.0,
    # f' is the sigmoid, whose supremum is 1
    F.softplus: 1.0,
    # f' = s + z s (1 - s) with s the sigmoid; f'' = 0 where z tanh(z / 2) = 2, and there f' = 1/2 + z / 4.
    # f'(-z) = 1 - f'(z), here and for gelu, so the lowest slope is smaller in size
    F.silu: 0.5 + 2.39935728051547 / 4,
    # f' = Phi(z) + z phi(z); f'' = (2 - z^2) phi(z) = 0 at z = sqrt(2)
    F.gelu: (1 + math.erf(1)) / 2 + math.exp(-1) / math.sqrt(math.pi),
}


def activation_lipschitz(activation: Activation) -> float:
    """The Lipschitz constant of an activation of `torch.nn.functional`; KeyError for one that no spec can name."""
    return _LIPSCHITZ[activation]


def staged(
    depths: Sequence[int], widths: Sequence[int], strides: Sequence[int], c_in: int, block: Callable[..., nn.Module]
) -> nn.Sequential:
    """Stages of blocks, each from channels in and out and its stride, which is 1 but for the first block of a stage."""
    stages = []
    for depth, width, stride in zip(depths, widths, strides, strict=True):
        stages.append(nn.Sequential(block(c_in, width, stride), *(block(width, width, 1) for _ in range(depth - 1))))
        c_in = width
    return nn.Sequential(*stages)


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
