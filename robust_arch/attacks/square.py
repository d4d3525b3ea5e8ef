"""Adapter to the Square attack (Andriushchenko et al. 2020): the authors' code, as pyautoattack distributes it."""

from dataclasses import dataclass

import torch
from pyautoattack.square import SquareAttack
from torch import Tensor, nn

from robust_arch.attacks.autoattack import LIBRARY_NORMS, distribution_version, require_size_for_square
from robust_arch.attacks.base import Attack, require_count
from robust_arch.attacks.threat import ThreatModel


@dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """Random search over squares on the margin loss (Andriushchenko et al. 2020); it uses logits, never a gradient.

    queries: forward passes per image at most; the schedule of square sizes is rescaled to them. block_size: images
    attacked in one call of the library, in index order. The images of a block share the library's random numbers, so
    the block is part of what determines the result.
    """

    queries: int = 1000
    block_size: int = 250

    def __post_init__(self) -> None:
        for key in ("queries", "block_size"):
            require_count(key, getattr(self, key))

    @property
    def implementation(self) -> str:
        """The distribution that holds the authors' code, with its version."""
        return f"pyautoattack {distribution_version('pyautoattack')}"

    @torch.no_grad()
    def run(self, net: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, seed: int, index: Tensor) -> Tensor:
        """One call of the library per block; images that it could not perturb come back clean."""
        require_size_for_square(x, threat)
        search = SquareAttack(
            net, norm=LIBRARY_NORMS[threat.norm], eps=threat.eps, n_queries=self.queries, seed=seed, device=x.device
        )
        x_adv = x.clone()
        for block in torch.split(index.argsort(), self.block_size):
            x_adv[block] = search.perturb(x[block], y[block])
        return x_adv
