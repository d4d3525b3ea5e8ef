"""Parameters and multiply-accumulates of single layers, from which a family adds up its closed-form cost.

Channels and depths may be integers or int64 arrays, for many architectures at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robust_arch.architectures.family import CostTerms

Size = tuple[int, int]
"""Height and width of a feature map."""


@dataclass(frozen=True)
class Count:
    """Parameters, and MACs per image."""

    params: Any = 0
    macs: Any = 0

    def __add__(self, other: "Count") -> "Count":
        return Count(self.params + other.params, self.macs + other.macs)

    def __mul__(self, times: Any) -> "Count":
        return Count(self.params * times, self.macs * times)


def convolution(c_in: Any, c: Any, kernel: int, size: Size, *, groups: Any = 1, bias: bool = False) -> Count:
    """A kernel x kernel convolution whose output has this size."""
    weights = kernel * kernel * c_in * c // groups
    return Count(weights + bias * c, weights * (size[0] * size[1]))


def norm(c: Any) -> Count:
    """Scale and shift of BatchNorm or LayerNorm."""
    return Count(2 * c)


def linear(c_in: Any, c: Any, *, bias: bool = True) -> Count:
    """A linear layer on one vector per image."""
    return Count(c_in * c + bias * c, c_in * c)


def halved(size: Size) -> Size:
    """The size after a layer of stride 2 that also reads the border."""
    return -(-size[0] // 2), -(-size[1] // 2)


def strided(size: Size, stride: int) -> Size:
    """The size after a layer of stride 1 or 2 that also reads the border."""
    return size if stride == 1 else halved(size)


def pixels(size: Size) -> int:
    """Positions of a feature map."""
    return size[0] * size[1]


def same_padded(size: Size) -> Size:
    """The size after `SamePadding`."""
    return size[0] + 1 + size[0] % 2, size[1] + 1 + size[1] % 2


def at_least_one(number: Any) -> Any:
    """The number, or 1 where it is smaller; of integers or arrays."""
    return np.maximum(number, 1) if isinstance(number, np.ndarray) else max(number, 1)


def rounded(number: Any) -> Any:
    """The nearest integer of at least 1, halves to even; of floats or arrays."""
    if isinstance(number, np.ndarray):
        return np.maximum(np.rint(number).astype(np.int64), 1)
    return max(round(number), 1)


def cost_terms_of(stages: Sequence[Count], outside: Count) -> CostTerms:
    """The cost of a network from that of its stages and of all that is outside them."""
    return CostTerms(
        stage_params=tuple(stage.params for stage in stages),
        stage_macs=tuple(stage.macs for stage in stages),
        outside_params=outside.params,
        outside_macs=outside.macs,
    )
