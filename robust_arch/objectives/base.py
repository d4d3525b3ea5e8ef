"""The interface of a training objective."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from torch import Tensor, nn

from robust_arch.attacks import Attack, ThreatModel
from robust_arch.errors import invalid


@dataclass(frozen=True)
class Loss:
    """The loss of one batch.

    Attributes:
        total: scalar float32 to descend, with gradient.
        logits: (B, K), detached, by which training accuracy is counted.
        terms: detached scalars by name, for the log.
    """

    total: Tensor
    logits: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Objective(ABC):
    """What a training step descends. name: label in the records."""

    name: str

    @property
    def is_adversarial(self) -> bool:
        """Whether training attacks its images; natural training does not."""
        return True

    @abstractmethod
    def __call__(self, net: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, seed: int, index: Tensor) -> Loss:
        """The loss of one batch.

        Args:
            net: the network, in training mode.
            x: images (B, C, H, W) in [0, 1].
            y: labels (B,).
            threat: what the inner maximisation may do.
            seed: of this step's inner maximisation.
            index: (B,) positions of the examples in the training set.
        """


@dataclass(frozen=True, kw_only=True)
class RegularizedObjective(Objective):
    """A loss plus beta times a smoothness term; `attack` is the inner maximisation."""

    attack: Attack
    beta: float = 6.0

    def __post_init__(self) -> None:
        if isinstance(self.beta, str) or not 0 <= self.beta < math.inf:
            raise invalid("objective.beta", self.beta, "a finite number of at least 0")
