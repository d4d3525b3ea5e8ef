"""A recipe: every choice of the training that is not architecture, data, threat model or objective."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from torch import nn
from torch.optim import Optimizer

from robust_arch.attacks import ThreatModel
from robust_arch.data.augment import CropFlip
from robust_arch.errors import invalid, require_choice, require_integer, require_name
from robust_arch.training.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is optimised.

    Attributes:
        name: label in the records.
        epochs: used unless trainer.max_epochs is set.
        batch_size: global, divided over devices.
        optimizer: from parameters to an Optimizer.
        schedule: of the learning rate.
        augment: of the training images.
        gradient_clip: largest global norm of the gradient, None for no clipping.
        normalize: the network's first layer: "identity", or "dataset" for the training set's mean and std.
        drop_last: whether an incomplete last batch is left out.
        decay_all: False keeps weight decay off BatchNorm and biases.
        early_stopping: epochs without a better held-out robust accuracy after which training ends, None for never.
        eps_warmup: epochs in which the radius of the inner maximisation rises linearly to eps.
    """

    name: str
    epochs: int
    batch_size: int
    optimizer: Callable[[Any], Optimizer]
    schedule: Schedule
    augment: CropFlip
    gradient_clip: float | None = None
    normalize: str = "identity"
    drop_last: bool = True
    decay_all: bool = True
    early_stopping: int | None = None
    eps_warmup: int = 0

    def __post_init__(self) -> None:
        require_name("recipe.name", self.name)
        for key, least in (("epochs", 1), ("batch_size", 1), ("early_stopping", 1), ("eps_warmup", 0)):
            require_integer(f"recipe.{key}", getattr(self, key), least, optional=key == "early_stopping")
        if self.gradient_clip is not None and not 0 < self.gradient_clip < math.inf:
            allowed = "a finite number greater than 0, or null for none"
            raise invalid("recipe.gradient_clip", self.gradient_clip, allowed)
        require_choice("recipe.normalize", self.normalize, ("identity", "dataset"))

    def parameter_groups(self, net: nn.Module) -> list[dict[str, Any]]:
        """The optimizer's parameter groups: all parameters, or one-dimensional ones apart, without weight decay."""
        parameters = list(net.parameters())
        if self.decay_all:
            return [{"params": parameters}]
        return [
            {"params": [parameter for parameter in parameters if parameter.ndim > 1]},
            {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
        ]

    def threat_at(self, threat: ThreatModel, epoch: int) -> ThreatModel:
        """The threat model of one epoch, counted from 0: eps (epoch + 1) / (eps_warmup + 1) during the warm-up."""
        if epoch >= self.eps_warmup:
            return threat
        return threat.scaled(Fraction(epoch + 1, self.eps_warmup + 1))


def require_equal_shares(recipe: Recipe, devices: int) -> None:
    """Raise InputError unless every batch divides evenly: the mean over devices is then the mean over the batch."""
    if recipe.batch_size % devices:
        raise invalid("recipe.batch_size", recipe.batch_size, f"a multiple of trainer.devices = {devices}")
    if devices > 1 and not recipe.drop_last:
        raise invalid("recipe.drop_last", False, "true where trainer.devices > 1, as devices need equal shares")
