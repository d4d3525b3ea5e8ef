"""Adapter to AutoAttack (Croce and Hein 2020): the authors' own code, as the package pyautoattack distributes it."""

import sys
from dataclasses import dataclass
from importlib.metadata import version

import pyautoattack
import torch
from torch import Tensor, nn

from robust_arch.attacks.base import Attack, check_labels
from robust_arch.attacks.threat import ThreatModel
from robust_arch.errors import invalid

_NORMS = {"linf": "Linf", "l2": "L2"}


@dataclass(frozen=True, kw_only=True)
class AutoAttack(Attack):
    """The full standard suite: APGD-CE, APGD-T, FAB-T, Square, on min(9, K - 1) target classes.

    block_size: images attacked in one call of the library, in index order. The library reseeds for each of its
    batches, so the block is part of what determines the result; within a block it equals a direct call.
    """

    block_size: int = 250
    min_classes = 4  # the targeted DLR loss divides by a difference of the first, third and fourth largest logits

    def __post_init__(self) -> None:
        if self.block_size < 1:
            raise invalid("attack.block_size", self.block_size, "an integer of at least 1")

    @property
    def implementation(self) -> str:
        """The distribution that holds the authors' code, with its version."""
        return f"pyautoattack {version('pyautoattack')}"

    def run(self, net: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, seed: int, index: Tensor) -> Tensor:
        """One call of the library a block; images that it could not perturb come back clean."""
        with torch.no_grad():
            num_classes = net(x[:1]).shape[1]
        if num_classes < self.min_classes:
            raise invalid("autoattack", num_classes, f"at least {self.min_classes} classes, for the DLR loss")
        check_labels(y, num_classes)
        suite = pyautoattack.AutoAttack(
            net, norm=_NORMS[threat.norm], eps=threat.eps, version="standard", seed=seed, device=x.device
        )
        suite.apgd_targeted.n_target_classes = min(9, num_classes - 1)
        suite.fab.n_target_classes = min(9, num_classes - 1)
        x_adv = x.clone()
        tracer = sys.gettrace()  # the library's check for dynamic defences leaves Python without one
        try:
            for block in torch.split(index.argsort(), self.block_size):
                x_adv[block], _ = suite.run_standard_evaluation(x[block], y[block], batch_size=self.block_size)
        finally:
            sys.settrace(tracer)
        return x_adv
