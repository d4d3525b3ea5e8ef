"""A recipe: every choice of the training that is not architecture, data, threat model or objective."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from robust_arch.attacks import ThreatModel
from robust_arch.data.augment import CropFlip
from robust_arch.data.mixing import CutMix, Mixture, MixUp, draw
from robust_arch.errors import invalid, require_choice, require_integer, require_name
from robust_arch.objectives import Objective
from robust_arch.training.averaging import Averaging
from robust_arch.training.schedule import Schedule
from robust_arch.training.weight_perturbation import AWP


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
        steps_per_epoch: batches of an epoch, all of them whole; None is one pass over the training set.
        decay_all: False keeps weight decay off BatchNorm and biases.
        early_stopping: epochs without a better held-out robust accuracy after which training ends, None for never.
        eps_warmup: epochs in which the radius of the inner maximisation rises linearly to eps.
        attack_warmup: epochs without inner maximisation before that.
        label_smoothing: share of a label that is spread evenly over all classes (Szegedy et al. 2016).
        mixup: of pairs of images and their labels.
        cutmix: the same with boxes.
        averaging: of the weights, None for none.
        awp: adversarial weight perturbation, by default none.
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
    attack_warmup: int = 0
    label_smoothing: float = 0.0
    mixup: MixUp = field(default_factory=MixUp)
    cutmix: CutMix = field(default_factory=CutMix)
    steps_per_epoch: int | None = None
    averaging: Averaging | None = None
    awp: AWP = field(default_factory=AWP)

    def __post_init__(self) -> None:
        require_name("recipe.name", self.name)
        for key, least in (("epochs", 1), ("batch_size", 1), ("eps_warmup", 0), ("attack_warmup", 0)):
            require_integer(f"recipe.{key}", getattr(self, key), least)
        for key in ("early_stopping", "steps_per_epoch"):
            require_integer(f"recipe.{key}", getattr(self, key), 1, optional=True)
        if self.early_stopping is not None and self.early_stopping <= self.attack_warmup:
            allowed = f"more than recipe.attack_warmup = {self.attack_warmup}, or null: no robustness before that"
            raise invalid("recipe.early_stopping", self.early_stopping, allowed)
        if self.gradient_clip is not None and not 0 < self.gradient_clip < math.inf:
            allowed = "a finite number greater than 0, or null for none"
            raise invalid("recipe.gradient_clip", self.gradient_clip, allowed)
        require_choice("recipe.normalize", self.normalize, ("identity", "dataset"))
        smoothing = self.label_smoothing
        if isinstance(smoothing, bool) or not isinstance(smoothing, int | float) or not 0 <= smoothing < 1:
            raise invalid("recipe.label_smoothing", smoothing, "a number in [0, 1)")
        for key, kind in (("mixup", MixUp), ("cutmix", CutMix)):
            if not isinstance(getattr(self, key), kind):
                raise invalid(f"recipe.{key}", getattr(self, key), f"a group of keys with a _target_: {kind.__name__}")

    @property
    def label(self) -> str:
        """The name in records: with each of its newer ingredients, which tables must not mix silently, if it is on."""
        parts = [f"attack_warmup{self.attack_warmup}"] if self.attack_warmup else []
        parts += [f"label_smoothing{self.label_smoothing:g}"] if self.label_smoothing else []
        parts += [str(kind) for kind in (self.mixup, self.cutmix) if kind.is_on]
        parts += [f"steps_per_epoch{self.steps_per_epoch}"] if self.steps_per_epoch else []
        parts += [str(self.awp)] if self.awp.gamma is not None else []
        parts += [str(self.averaging)] if self.averaging is not None else []
        return "+".join([str(self.name), *parts])

    @property
    def has_soft_labels(self) -> bool:
        """Whether labels are probabilities (B, K), as they are mixed or smoothed."""
        return self.label_smoothing > 0 or self.mixup.is_on or self.cutmix.is_on

    def require_fits(self, objective: Objective, epochs: int) -> None:
        """Raise InputError unless the objective takes the recipe's labels, and training outlasts the attack's warm-up.

        epochs: of the run.
        """
        if self.has_soft_labels and not objective.takes_soft_labels:
            attack = getattr(objective, "attack", None)
            what = f"{type(objective).__name__}{f' with {attack}' if attack else ''}"
            allowed = (
                "one that takes soft labels, which recipe.label_smoothing, mixup and cutmix make; attacks on "
                "cross-entropy or KL with one restart take them"
            )
            raise invalid("objective", what, allowed)
        if self.attack_warmup >= epochs:
            allowed = f"fewer epochs than trainer.max_epochs = {epochs}, as no attack comes before"
            raise invalid("recipe.attack_warmup", self.attack_warmup, allowed)

    def soft_labels(self, y: Tensor, num_classes: int) -> Tensor:
        """Smoothed labels: probabilities (B, K) of labels y (B,)."""
        return (1 - self.label_smoothing) * F.one_hot(y, num_classes).float() + self.label_smoothing / num_classes

    def mixture(self, seed: int, size: tuple[int, int]) -> Mixture | None:
        """How the batch that `seed` stands for is mixed, if it is; size: (H, W) of its images."""
        return draw(self.mixup, self.cutmix, seed, size)

    @property
    def weights(self) -> tuple[str, ...]:
        """The names of the weights in a checkpoint, like ("raw", "ema")."""
        return ("raw",) if self.averaging is None else ("raw", self.averaging.name)

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
        """The threat model of one epoch, counted from 0.

        Its radius is 0 during the attack's warm-up; i epochs later it is eps (i + 1) / (eps_warmup + 1), at most eps.
        """
        if epoch < self.attack_warmup:
            return threat.scaled(Fraction(0))
        attacked = epoch - self.attack_warmup + 1
        return threat.scaled(min(Fraction(attacked, self.eps_warmup + 1), Fraction(1)))


def require_equal_shares(recipe: Recipe, devices: int) -> None:
    """Raise InputError unless every batch divides evenly: the mean over devices is then the mean over the batch."""
    if recipe.batch_size % devices:
        raise invalid("recipe.batch_size", recipe.batch_size, f"a multiple of trainer.devices = {devices}")
    if devices > 1 and not recipe.drop_last and recipe.steps_per_epoch is None:
        allowed = "true where trainer.devices > 1, as devices need equal shares, unless recipe.steps_per_epoch is set"
        raise invalid("recipe.drop_last", False, allowed)
