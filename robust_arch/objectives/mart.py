"""MART (Wang et al. 2020): misclassified examples have larger weights."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robust_arch.attacks.losses import kl_divergence
from robust_arch.objectives.base import Loss, RegularizedObjective


def boosted_cross_entropy(logits_adv: Tensor, y: Tensor) -> Tensor:
    """CE(f(x'), y) - log(1.0001 - p_j(x')) for the most likely wrong class j, per example: (B,)."""
    wrong = torch.softmax(logits_adv, dim=1).scatter(1, y[:, None], 0.0).amax(dim=1)
    return F.cross_entropy(logits_adv, y, reduction="none") - torch.log(1.0001 - wrong)


@dataclass(frozen=True, kw_only=True)
class MART(RegularizedObjective):
    """Mean of BCE(f(x'), y) + beta * KL(p(x) || p(x')) * (1.0000001 - p_y(x)); the constants are the authors'."""

    def loss(self, net: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor) -> Loss:
        """Natural pass first, then the adversarial one."""
        logits = net(x).float()
        logits_adv = net(x_adv).float()
        boosted = boosted_cross_entropy(logits_adv, y).mean()
        own = torch.softmax(logits, dim=1).gather(1, y[:, None])[:, 0]
        weighted = (kl_divergence(logits, logits_adv) * (1.0000001 - own)).mean()
        terms = {"boosted_ce": boosted.detach(), "weighted_kl": weighted.detach()}
        return Loss(boosted + self.beta * weighted, logits_adv.detach(), terms)
