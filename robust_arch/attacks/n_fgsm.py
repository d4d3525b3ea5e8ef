"""N-FGSM: one step from noise that may leave the ball and is not cut back to it; for training, never for evaluation."""

import math
from dataclasses import dataclass
from fractions import Fraction

from torch import Tensor, nn
from torch.nn import functional as F

from robust_arch.attacks.base import Attack, image_gradient
from robust_arch.attacks.losses import at_least_float32
from robust_arch.attacks.threat import ThreatModel
from robust_arch.common import randomness
from robust_arch.errors import invalid


@dataclass(frozen=True, kw_only=True)
class NFGSM(Attack):
    """x + noise + one step of cross-entropy's steepest ascent, clipped to the box only (de Jorge et al. 2022).

    rel_noise: radius of the ball in which the noise is uniform, in units of eps; the authors' k = 2 for CIFAR.
    rel_step_size: length of the step in units of eps. The result lies within their sum, outside the threat model.
    """

    rel_noise: float = 2.0
    rel_step_size: float = 1.0

    def __post_init__(self) -> None:
        for key, value in vars(self).items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise invalid(f"attack.{key}", value, "a finite number greater than 0")

    @property
    def reach(self) -> Fraction:
        """Noise and step together."""
        return Fraction(str(self.rel_noise)) + Fraction(str(self.rel_step_size))

    @property
    def takes_soft_labels(self) -> bool:
        """True: it climbs cross-entropy."""
        return True

    def run(self, net: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, seed: int, index: Tensor) -> Tensor:
        """The gradient is taken at the noisy image."""
        noise = threat.random_offset(randomness.example_keys(seed, index), tuple(x.shape[1:]))
        noisy = (x + self.rel_noise * noise).clamp(0, 1).requires_grad_(True)
        loss = F.cross_entropy(at_least_float32(net(noisy)), y, reduction="sum")
        return noisy.detach() + self.rel_step_size * threat.eps * threat.steepest(image_gradient(loss, noisy))
