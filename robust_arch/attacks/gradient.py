"""The one projected-gradient loop: fgsm, pgd, cw and gama are settings of it."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from robust_arch.attacks.base import Attack, image_gradient, require_count
from robust_arch.attacks.losses import AttackLoss, CrossEntropy, margin
from robust_arch.attacks.start import Clean, Start, Uniform
from robust_arch.attacks.threat import ThreatModel
from robust_arch.common import randomness
from robust_arch.errors import invalid


@dataclass(frozen=True, kw_only=True)
class PGD(Attack):
    """Projected gradient ascent (Madry et al. 2018) on `loss` from `start`; the last iterate is projected and returned.

    Attributes:
        steps: gradient steps, at least 1.
        rel_step_size: length of a step in units of eps, greater than 0; divided by 10 at each of the steps `drops`.
        start: where an attempt starts.
        loss: what it climbs.
        drops: steps, counted from 0.
        restarts: attempts from different random starts. Later ones see only the examples that are not misclassified
            yet; of the attempts on one that never was, that of the largest logit margin is returned.
    """

    steps: int
    rel_step_size: float
    start: Start = field(default_factory=Uniform)
    loss: AttackLoss = field(default_factory=CrossEntropy)
    drops: tuple[int, ...] = ()
    restarts: int = 1

    def __post_init__(self) -> None:
        for key in ("steps", "restarts"):
            require_count(key, getattr(self, key))
        if self.restarts > 1 and isinstance(self.start, Clean):
            raise invalid("attack.restarts", self.restarts, "1 where every attempt starts from the clean image")
        drops = self.drops if isinstance(self.drops, list | tuple) else (0,)
        legal = [step for step in drops if type(step) is int and 0 < step < self.steps]
        if len(set(legal)) != len(drops):
            raise invalid("attack.drops", self.drops, f"different numbers of steps between 1 and {self.steps - 1}")
        object.__setattr__(self, "drops", tuple(drops))
        if isinstance(self.rel_step_size, str) or not 0 < self.rel_step_size < math.inf:
            raise invalid("attack.rel_step_size", self.rel_step_size, "a finite number greater than 0")

    @property
    def gradients(self) -> int:
        """The most gradients computed per image, each of which takes a forward and a backward pass."""
        return self.steps * self.restarts

    @property
    def takes_soft_labels(self) -> bool:
        """True for one attempt on a loss that takes them; which of several attempts is best needs a label."""
        return self.restarts == 1 and getattr(self.loss, "takes_soft_labels", False)

    def run(self, net: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, seed: int, index: Tensor) -> Tensor:
        """All attempts, each from a start of its own."""
        x_adv = self._attempt(net, x, y, threat, randomness.example_keys(seed, index))
        if self.restarts == 1:
            return x_adv
        margins = _margins(net, x_adv, y)
        for restart in range(1, self.restarts):
            standing = (~(margins > 0)).nonzero()[:, 0]
            if not len(standing):
                break
            keys = randomness.example_keys(randomness.derive(seed, "restart", restart), index[standing])
            tried = self._attempt(net, x[standing], y[standing], threat, keys)
            reached = _margins(net, tried, y[standing])
            better = reached > margins[standing]
            x_adv[standing[better]], margins[standing[better]] = tried[better], reached[better]
        return x_adv

    def _attempt(self, net: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, keys: Tensor) -> Tensor:
        """Steps along the steepest direction, each projected. keys: (B,), the examples' random streams."""
        with torch.no_grad():
            region = threat.region(x)
            x_adv = region.project(self.start(x, threat, keys))
            loss = self.loss.prepare(net, x, y, x_adv)
        step_size = self.rel_step_size * threat.eps
        for step in range(self.steps):
            if step in self.drops:
                step_size /= 10
            x_adv.requires_grad_(True)
            gradient = image_gradient(loss(net(x_adv), step).sum(), x_adv)
            with torch.no_grad():
                x_adv = region.project(x_adv + step_size * threat.steepest(gradient))
        return x_adv


@torch.no_grad()
def _margins(net: nn.Module, x_adv: Tensor, y: Tensor) -> Tensor:
    return margin(net(x_adv), y)
