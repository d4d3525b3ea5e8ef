"""The interface of a training objective."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from torch import Tensor
from torch.nn import Module

from robust_arch.architectures import AnyArch, ArchSpec
from robust_arch.attacks import Attack, ThreatModel
from robust_arch.errors import invalid
from robust_arch.runs.labels import USUAL_BETA, with_beta


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
    """What a training step descends. name: in the records.

    Labels y are integers (B,), or probabilities (B, K) where the recipe mixes or smooths them.
    """

    name: str

    @property
    def label(self) -> str:
        """The name in records, with what tables must not mix silently."""
        return str(self.name)

    @property
    def takes_soft_labels(self) -> bool:
        """Whether labels may be probabilities (B, K)."""
        return False

    def for_network(self, spec: AnyArch) -> Self:  # noqa: ARG002
        """The objective with which this architecture is trained."""
        return self

    @property
    def is_adversarial(self) -> bool:
        """Whether training attacks its images; natural training does not."""
        return False

    def adversarial(self, net: Module, x: Tensor, y: Tensor, threat: ThreatModel, seed: int, index: Tensor) -> Tensor:  # noqa: ARG002
        """The images x' of the inner maximisation, (B, C, H, W); without one, x itself.

        Args:
            net: the network, in training mode; attacks see it in evaluation mode.
            x: images (B, C, H, W) in [0, 1].
            y: labels, (B,) or (B, K).
            threat: what the inner maximisation may do.
            seed: of this step's inner maximisation.
            index: (B,) positions of the examples in the training set.
        """
        return x

    @abstractmethod
    def loss(self, net: Module, x: Tensor, x_adv: Tensor, y: Tensor) -> Loss:
        """The outer loss of one batch, for images x, adversarial images x_adv (both (B, C, H, W)) and labels y."""

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

    @property
    def takes_soft_labels(self) -> bool:
        """Whether the attack does; the outer losses of this package do."""
        return not self.is_adversarial or self.attack.takes_soft_labels

    def adversarial(self, net: Module, x: Tensor, y: Tensor, threat: ThreatModel, seed: int, index: Tensor) -> Tensor:
        """The result of `attack`; x where the objective does not use it, and for a radius of 0."""
        if not self.is_adversarial or not threat.eps:
            return x
        return self.attack(net, x, y, threat, seed=seed, index=index, check=False)


@dataclass(frozen=True, kw_only=True)
class RegularizedObjective(AdversarialObjective):
    """A loss plus beta times a smoothness term.

    Attributes:
        beta: a number, or a mapping from widening factors to numbers, {1: 6, 10: 12}: linear in between, constant
            outside (Wu et al. 2021: a wider network needs a larger beta). `widening_factor` defines the factor.
    """

    beta: float | Mapping[float, float] = USUAL_BETA

    def __post_init__(self) -> None:
        allowed = "a finite number of at least 0, or a mapping from widening factors to such, like {1: 6, 10: 9}"
        if isinstance(self.beta, Mapping):
            entries = [*self.beta, *self.beta.values()]
            if not entries or not all(map(_is_measure, entries)) or min(self.beta) <= 0:
                raise invalid("objective.beta", self.beta, allowed)
            object.__setattr__(self, "beta", {float(factor): self.beta[factor] for factor in sorted(self.beta)})
        elif not _is_measure(self.beta):
            raise invalid("objective.beta", self.beta, allowed)

    @property
    def label(self) -> str:
        """The name, with a beta other than 6: `trades-beta9`, or `trades-beta1:6,10:12` for a mapping."""
        return with_beta(str(self.name), self.beta)

    @property
    def has_beta(self) -> bool:
        """Whether some network is trained with a beta above 0."""
        return max(self.beta.values() if isinstance(self.beta, Mapping) else [self.beta]) > 0

    @property
    def weight(self) -> float:
        """Beta of the network at hand, as a number; `for_network` takes it from a mapping."""
        if isinstance(self.beta, Mapping):
            raise TypeError(f"beta = {self.beta!r}: not a number; call for_network first")
        return self.beta

    def for_network(self, spec: AnyArch) -> Self:
        """With the number that a mapping gives for the architecture's widening factor.

        Raises:
            InputError: for a mapping and a network of the user's own, which has no widening factor.
        """
        if not isinstance(self.beta, Mapping):
            return self
        if not isinstance(spec, ArchSpec):
            raise invalid("objective.beta", self.beta, "a number, as a network of one's own has no known widths")
        return replace(self, beta=float(np.interp(widening_factor(spec), [*self.beta], [*self.beta.values()])))


def widening_factor(spec: ArchSpec) -> float:
    """The mean over stages i = 0, 1, ... of widths[i] / (16 * 2^i): k for WRN-n-k, whose stages are 16k, 32k, 64k."""
    return sum(width / (16 << stage) for stage, width in enumerate(spec.widths)) / len(spec.widths)


def _is_measure(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and 0 <= value < math.inf
