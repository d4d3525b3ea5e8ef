"""What gradient attacks climb: a value an example, never reduced over the batch before a non-linearity."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LogitLoss = Callable[[Tensor], Tensor]


class AttackLoss(Protocol):
    """Prepares a loss for one batch: what it needs of the clean images is computed once, before the first step."""

    def prepare(self, net: nn.Module, x: Tensor, y: Tensor) -> LogitLoss:
        """A function from logits (B, K) to the loss of each example (B,)."""


@dataclass(frozen=True)
class CrossEntropy:
    """-log p_y(x')."""

    def prepare(self, net: nn.Module, x: Tensor, y: Tensor) -> LogitLoss:  # noqa: ARG002
        """Needs the labels alone."""
        return lambda logits: F.cross_entropy(logits.float(), y, reduction="none")


def kl_divergence(logits_p: Tensor, logits_q: Tensor) -> Tensor:
    """KL(p || q) of the softmax distributions of two sets of logits, (B, K) each, in nats: (B,) float32."""
    log_p, log_q = F.log_softmax(logits_p.float(), dim=1), F.log_softmax(logits_q.float(), dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)


@dataclass(frozen=True)
class KLToClean:
    """KL(p(x) || p(x')), the inner loss of TRADES (Zhang et al. 2019)."""

    def prepare(self, net: nn.Module, x: Tensor, y: Tensor) -> LogitLoss:  # noqa: ARG002
        """One forward pass on the clean images, without gradient."""
        with torch.no_grad():
            clean = net(x)
        return lambda logits: kl_divergence(clean, logits)


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Max over j != y of z_j, minus z_y; positive where misclassified. logits: (B, K), y: (B,). Returns (B,)."""
    own = logits.gather(1, y[:, None])
    others = logits.scatter(1, y[:, None], -torch.inf)
    return others.amax(dim=1) - own[:, 0]


@dataclass(frozen=True)
class Margin:
    """The logit margin of Carlini and Wagner 2017."""

    def prepare(self, net: nn.Module, x: Tensor, y: Tensor) -> LogitLoss:  # noqa: ARG002
        """Needs the labels alone."""
        return lambda logits: margin(logits.float(), y)
