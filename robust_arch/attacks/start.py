"""Where a gradient attack starts; the loop projects the start like any other iterate."""

import math
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from robust_arch.attacks.threat import ThreatModel
from robust_arch.common import randomness
from robust_arch.errors import invalid


class Start(Protocol):
    """A starting point from the clean image and the example's own random numbers."""

    def __call__(self, x: Tensor, threat: ThreatModel, keys: Tensor) -> Tensor:
        """x: (B, C, H, W), keys: (B,) as of `randomness.example_keys`. Returns (B, C, H, W)."""


@dataclass(frozen=True)
class Clean:
    """x itself."""

    def __call__(self, x: Tensor, threat: ThreatModel, keys: Tensor) -> Tensor:  # noqa: ARG002
        """No randomness."""
        return x


@dataclass(frozen=True)
class Uniform:
    """x plus a point uniform in the ball (Madry et al. 2018)."""

    def __call__(self, x: Tensor, threat: ThreatModel, keys: Tensor) -> Tensor:
        """Draws C * H * W numbers per example."""
        return x + threat.random_offset(keys, tuple(x.shape[1:]))


@dataclass(frozen=True)
class Bernoulli:
    """x plus eps or minus eps in every pixel, each with probability 1/2 (Sriramanan et al. 2020)."""

    def __call__(self, x: Tensor, threat: ThreatModel, keys: Tensor) -> Tensor:
        """Draws C * H * W numbers per example."""
        signs = 2 * (randomness.uniform(keys, tuple(x.shape[1:])) < 0.5).to(x.dtype) - 1
        return x + threat.eps * signs


@dataclass(frozen=True)
class Gaussian:
    """x plus N(0, std^2) noise, where std = `std` + `rel_std` * eps (0.25 eps in the code of Huang et al. 2021)."""

    std: float = 0.0
    rel_std: float = 0.0

    def __post_init__(self) -> None:
        for key, value in vars(self).items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise invalid(f"attack.start.{key}", value, "a finite number of at least 0")

    def __call__(self, x: Tensor, threat: ThreatModel, keys: Tensor) -> Tensor:
        """Draws C * H * W numbers per example."""
        return x + (self.std + self.rel_std * threat.eps) * randomness.normal(keys, tuple(x.shape[1:]))
