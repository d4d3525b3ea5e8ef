"""The one projected-gradient loop: fgsm, pgd and cw are settings of it."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from robust_arch import randomness
from robust_arch.attacks.base import Attack, check_labels
from robust_arch.attacks.losses import AttackLoss, CrossEntropy
from robust_arch.attacks.start import Start, Uniform
from robust_arch.attacks.threat import ThreatModel
from robust_arch.errors import invalid


@dataclass(frozen=True, kw_only=True)
class PGD(Attack):
    """Projected gradient ascent (Madry et al. 2018) on `loss` from `start`; the last iterate is projected and returned.

    steps: gradient steps, at least 1. rel_step_size: length of a step in units of eps, greater than 0.
    """

    steps: int
    rel_step_size: float
    start: Start = field(default_factory=Uniform)
    loss: AttackLoss = field(default_factory=CrossEntropy)

    def __post_init__(self) -> None:
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise invalid("attack.steps", self.steps, "an integer of at least 1")
        if not 0 < self.rel_step_size < math.inf:
            raise invalid("attack.rel_step_size", self.rel_step_size, "a finite number greater than 0")

    def run(self, net: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, seed: int, index: Tensor) -> Tensor:
        """Steps of `rel_step_size` * eps along the steepest direction, each projected."""
        with torch.no_grad():
            region = threat.region(x)
            start = self.start(x, threat, randomness.example_keys(seed, index))
            x_adv = region.project(start)
            loss = self.loss.prepare(net, x, y)
        step_size = self.rel_step_size * threat.eps
        for step in range(self.steps):
            x_adv.requires_grad_(True)
            logits = net(x_adv)
            if step == 0:  # once: a look at the labels makes the host wait for a GPU
                check_labels(y, logits.shape[1])
            (gradient,) = torch.autograd.grad(loss(logits).sum(), x_adv)
            with torch.no_grad():
                x_adv = region.project(x_adv + step_size * threat.steepest(gradient))
        return x_adv
