"""Training on clean images."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from robust_arch.objectives.base import Loss, Objective


@dataclass(frozen=True, kw_only=True)
class Natural(Objective):
    """CE(f(x), y)."""

    @property
    def takes_soft_labels(self) -> bool:
        """True."""
        return True

    def loss(self, net: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor) -> Loss:  # noqa: ARG002
        """x_adv is x, as nothing is attacked."""
        logits = net(x).float()
        return Loss(F.cross_entropy(logits, y), logits.detach())
