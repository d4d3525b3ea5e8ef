"""Training on clean images."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from robust_arch.attacks import ThreatModel
from robust_arch.objectives.base import Loss, Objective


@dataclass(frozen=True, kw_only=True)
class Natural(Objective):
    """CE(f(x), y)."""

    @property
    def is_adversarial(self) -> bool:
        """False."""
        return False

    def __call__(self, net: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, seed: int, index: Tensor) -> Loss:  # noqa: ARG002
        """The threat model is not used."""
        logits = net(x).float()
        return Loss(F.cross_entropy(logits, y), logits.detach())
