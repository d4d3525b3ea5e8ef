"""TRADES (Zhang et al. 2019): clean accuracy and smoothness as two terms."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from robust_arch.attacks.losses import kl_divergence
from robust_arch.objectives.base import Loss, RegularizedObjective
from robust_arch.objectives.natural import Natural


@dataclass(frozen=True, kw_only=True)
class TRADES(RegularizedObjective):
    """CE(f(x), y) + beta * mean KL(p(x) || p(x')), gradient through both terms and both passes."""

    @property
    def is_adversarial(self) -> bool:
        """False for a beta of 0, which is natural training."""
        return self.has_beta

    def loss(self, net: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor) -> Loss:
        """Natural pass first, then the adversarial one."""
        if not self.is_adversarial:  # BatchNorm sees clean images alone
            return Natural(name=self.name).loss(net, x, x_adv, y)
        logits = net(x).float()
        logits_adv = net(x_adv).float()
        natural = F.cross_entropy(logits, y)
        divergence = kl_divergence(logits, logits_adv).mean()
        terms = {"natural_loss": natural.detach(), "kl": divergence.detach()}
        return Loss(natural + self.weight * divergence, logits_adv.detach(), terms)
