"""The interface of a training objective."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from torch import Tensor
from torch.nn import Module

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
        return False

    def adversarial(self, net: Module, x: Tensor, y: Tensor, threat: ThreatModel, seed: int, index: Tensor) -> Tensor:  # noqa: ARG002
        """The images x' of the inner maximisation, (B, C, H, W); without one, x itself.

        Args:
            net: the network, in training mode; attacks see it in evaluation mode.
            x: images (B, C, H, W) in [0, 1].
            y: labels (B,).
            threat: what the inner maximisation may do.
            seed: of this step's inner maximisation.
            index: (B,) positions of the examples in the training set.
        """
        return x

    @abstractmethod
    def loss(self, net: Module, x: Tensor, x_adv: Tensor, y: Tensor) -> Loss:
        """The outer loss of one batch, for images x, adversarial images x_adv (both (B, C, H, W)) and labels y (B,)."""

    def __call__(self, net: Module, x: Tensor, y: Tensor, threat: ThreatModel, seed: int, index: Tensor) -> Loss:
        """Inner maximisation, then the outer loss at its result; arguments as in `adversarial`."""
        return self.loss(net, x, self.adversarial(net, x, y, threat, seed, index), y)


@dataclass(frozen=True, kw_only=True)
class AdversarialObjective(Objective):
    """An objective with an inner maximisation, `attack`."""

    attack: Attack

    @property
    def is_adversarial(self) -> bool:
        """True."""
        return True

    def adversarial(self, net: Module, x: Tensor, y: Tensor, threat: ThreatModel, seed: int, index: Tensor) -> Tensor:
        """The result of `attack`; x where the objective does not use it."""
        if not self.is_adversarial:
            return x
        return self.attack(net, x, y, threat, seed=seed, index=index, check=False)


@dataclass(frozen=True, kw_only=True)
class RegularizedObjective(AdversarialObjective):
    """A loss plus beta times a smoothness term."""

    beta: float = 6.0

    def __post_init__(self) -> None:
        if isinstance(self.beta, str) or not 0 <= self.beta < math.inf:
            raise invalid("objective.beta", self.beta, "a finite number of at least 0")
