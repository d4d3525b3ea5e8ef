"""What gradient attacks climb: one value per example, never reduced over the batch before a non-linearity."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robust_arch.attacks.base import require_count
from robust_arch.errors import invalid

LogitLoss = Callable[[Tensor, int], Tensor]
"""From logits (B, K) and the number of the step, counted from 0, to the loss of each example (B,)."""


class AttackLoss(Protocol):
    """Prepares a loss for one batch: whatever depends on fixed images is computed once, before the first step.

    A loss that also takes probabilities (B, K) for y has a class attribute `takes_soft_labels` that is True.
    """

    def prepare(self, net: nn.Module, x: Tensor, y: Tensor, x_start: Tensor) -> LogitLoss:
        """The loss for clean images x and the projected start, both (B, C, H, W), and labels y (B,)."""


@dataclass(frozen=True)
class CrossEntropy:
    """-log p_y(x'), or for soft labels t the sum over classes of -t_k log p_k(x')."""

    takes_soft_labels: ClassVar[bool] = True

    def prepare(self, net: nn.Module, x: Tensor, y: Tensor, x_start: Tensor) -> LogitLoss:  # noqa: ARG002
        """Needs only the labels."""
        return lambda logits, _: F.cross_entropy(at_least_float32(logits), y, reduction="none")


def at_least_float32(logits: Tensor) -> Tensor:
    """Half-precision logits as float32; float64, which a caller chose for exactness, stays."""
    return logits if logits.dtype == torch.float64 else logits.float()


def kl_divergence(logits_p: Tensor, logits_q: Tensor) -> Tensor:
    """KL(p || q) of the softmax distributions of two sets of logits, (B, K) each, in nats: (B,) float32 or float64."""
    log_p, log_q = (F.log_softmax(at_least_float32(logits), dim=1) for logits in (logits_p, logits_q))
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)


@dataclass(frozen=True)
class KLToClean:
    """KL(p(x) || p(x')), the inner loss of TRADES (Zhang et al. 2019); it does not use the labels."""

    takes_soft_labels: ClassVar[bool] = True

    def prepare(self, net: nn.Module, x: Tensor, y: Tensor, x_start: Tensor) -> LogitLoss:  # noqa: ARG002
        """One forward pass on the clean images, without gradient."""
        with torch.no_grad():
            clean = net(x)
        return lambda logits, _: kl_divergence(clean, logits)


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Max over j != y of z_j, minus z_y; positive where misclassified. logits: (B, K), y: (B,). Returns (B,)."""
    own = logits.gather(1, y[:, None])
    others = logits.scatter(1, y[:, None], -torch.inf)
    return others.amax(dim=1) - own[:, 0]


@dataclass(frozen=True)
class Margin:
    """The logit margin of Carlini and Wagner 2017."""

    def prepare(self, net: nn.Module, x: Tensor, y: Tensor, x_start: Tensor) -> LogitLoss:  # noqa: ARG002
        """Needs only the labels."""
        return lambda logits, _: margin(at_least_float32(logits), y)


@dataclass(frozen=True)
class LogitRatio:
    """The margin over z_(1) - z_(3), the largest minus the third largest logit (DLR, Croce and Hein 2020).

    It does not change where logits are shifted or scaled. Needs three classes.
    """

    def prepare(self, net: nn.Module, x: Tensor, y: Tensor, x_start: Tensor) -> LogitLoss:  # noqa: ARG002
        """Needs only the labels."""

        def loss(logits: Tensor, _: int) -> Tensor:
            logits = at_least_float32(logits)
            ordered = logits.topk(3, dim=1).values
            return margin(logits, y) / (ordered[:, 0] - ordered[:, 2] + 1e-12)

        return loss


@dataclass(frozen=True, kw_only=True)
class GuidedMargin:
    """The loss of GAMA (Sriramanan et al. 2020): margin of the softmax plus w_t ||p(x') - p(anchor)||_2^2.

    w_t = `weight` * (1 - t / `decay_steps`) at step t, and 0 from step `decay_steps`. anchor: `clean`, the method's
    formula, or `start`, what the published code does (there before the start is cut to [0, 1], here after).
    """

    weight: float = 50.0
    decay_steps: int = 25
    anchor: str = "clean"

    def __post_init__(self) -> None:
        if self.anchor not in ("clean", "start"):
            raise invalid("attack.loss.anchor", self.anchor, "clean or start")
        if isinstance(self.weight, str) or not 0 <= self.weight < math.inf:
            raise invalid("attack.loss.weight", self.weight, "a finite number of at least 0")
        require_count("loss.decay_steps", self.decay_steps)

    def prepare(self, net: nn.Module, x: Tensor, y: Tensor, x_start: Tensor) -> LogitLoss:
        """One forward pass on the anchor, without gradient."""
        with torch.no_grad():
            anchor = F.softmax(at_least_float32(net(x if self.anchor == "clean" else x_start)), dim=1)

        def loss(logits: Tensor, step: int) -> Tensor:
            p = F.softmax(at_least_float32(logits), dim=1)
            weight = self.weight * max(1 - step / self.decay_steps, 0.0)
            return margin(p, y) + weight * (p - anchor).square().sum(dim=1)

        return loss
