"""Standard adversarial training (Madry et al. 2018)."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from robust_arch.attacks import Attack, ThreatModel
from robust_arch.objectives.base import Loss, Objective


@dataclass(frozen=True, kw_only=True)
class SAT(Objective):
    """CE(f(x'), y), with x' from `attack`, the inner maximisation."""

    attack: Attack

    def __call__(self, net: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, seed: int, index: Tensor) -> Loss:
        """Attacks in evaluation mode, descends in training mode."""
        x_adv = self.attack(net, x, y, threat, seed=seed, index=index, check=False)
        logits = net(x_adv).float()
        return Loss(F.cross_entropy(logits, y), logits.detach())
