"""Standard adversarial training (Madry et al. 2018)."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from robust_arch.objectives.base import AdversarialObjective, Loss


@dataclass(frozen=True, kw_only=True)
class SAT(AdversarialObjective):
    """CE(f(x'), y), with x' from `attack`, the inner maximisation."""

    def loss(self, net: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor) -> Loss:  # noqa: ARG002
        """The clean images are not used."""
        logits = net(x_adv).float()
        return Loss(F.cross_entropy(logits, y), logits.detach())
