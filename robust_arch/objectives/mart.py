"""MART (Wang et al. 2020): misclassified examples have larger weights."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robust_arch.attacks.losses import kl_divergence
from robust_arch.objectives.base import Loss, RegularizedObjective


def boosted_cross_entropy(logits_adv: Tensor, y: Tensor) -> Tensor:
    """CE(f(x'), y) - log(1.0001 - p_j(x')) for the most likely wrong class j, per example: (B,).

    For probabilities y (B, K) it is the mean over labels that are drawn from y.
    """
    p = torch.softmax(logits_adv, dim=1)
    cross_entropy = F.cross_entropy(logits_adv, y, reduction="none")
    if y.ndim == 1:
        return cross_entropy - torch.log(1.0001 - p.scatter(1, y[:, None], 0.0).amax(dim=1))
    # every class is wrong by the most likely one, which itself is wrong by the second
    largest = p.topk(2, dim=1)
    wrong = largest.values[:, :1].expand_as(p).scatter(1, largest.indices[:, :1], largest.values[:, 1:])
    return cross_entropy - (y * torch.log(1.0001 - wrong)).sum(dim=1)


@dataclass(frozen=True, kw_only=True)
class MART(RegularizedObjective):
    """Mean of BCE(f(x'), y) + beta * KL(p(x) || p(x')) * (1.0000001 - p_y(x)); the constants are the authors'.

    For soft labels it is the mean of this loss over labels that are drawn from them: p_y(x) becomes the sum over
    classes of y_k p_k(x), and a one-hot label gives the published loss.
    """

    def loss(self, net: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor) -> Loss:
        """Natural pass first, then the adversarial one."""
        logits = net(x).float()
        logits_adv = net(x_adv).float()
        boosted = boosted_cross_entropy(logits_adv, y).mean()
        p = torch.softmax(logits, dim=1)
        own = p.gather(1, y[:, None])[:, 0] if y.ndim == 1 else (y * p).sum(dim=1)
        weighted = (kl_divergence(logits, logits_adv) * (1.0000001 - own)).mean()
        terms = {"boosted_ce": boosted.detach(), "weighted_kl": weighted.detach()}
        return Loss(boosted + self.weight * weighted, logits_adv.detach(), terms)
