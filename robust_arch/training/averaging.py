"""Averages of the weights over training: EMA and SWA."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from robust_arch.errors import invalid, require_choice, require_flag


@dataclass(frozen=True, kw_only=True)
class Averaging(ABC):
    """An average of the weights, kept beside those that are trained, which it does not change.

    Attributes:
        name: of the averaged weights, in checkpoints and in the column `weights` of results.csv.
        select: the weights whose robust accuracy on held-out images decides the best epoch: averaged or raw.
        batch_norm: the running statistics of the averaged network's BatchNorm: "average", averaged like the weights, or
            "recompute", computed anew from training images after each epoch.
    """

    name: ClassVar[str]
    select: str = "averaged"
    batch_norm: str = "average"

    def __post_init__(self) -> None:
        require_choice("recipe.averaging.select", self.select, ("averaged", "raw"))
        require_choice("recipe.averaging.batch_norm", self.batch_norm, ("average", "recompute"))

    def __str__(self) -> str:
        """As in the recipe's name in records: with every setting that is not the default, like `ema:decay-0.995`."""
        held = {
            each.name: getattr(self, each.name) for each in fields(self) if getattr(self, each.name) != each.default
        }
        return ":".join([self.name, *(f"{name}-{str(value).lower()}" for name, value in held.items())])

    @property
    def selected(self) -> str:
        """The name of the weights that decide the best epoch: `name` or raw."""
        return self.name if self.select == "averaged" else "raw"

    @abstractmethod
    def share(self, step: int, steps_per_epoch: int, epochs: int) -> float | None:
        """The share of the current weights in the average after `step` training steps; 1 makes it a copy of them.

        None leaves the average as it is.
        """

    def warning(self, epochs: int) -> str | None:  # noqa: ARG002
        """Why the averaged weights will equal the trained ones after so many epochs; None if they will not."""
        return None

    def update(self, averaged: nn.Module, net: nn.Module, step: int, steps_per_epoch: int, epochs: int) -> None:
        """Move the parameters and floating-point buffers of `averaged` towards those of `net`; copy other buffers."""
        if (share := self.share(step, steps_per_epoch, epochs)) is None:
            return
        with torch.no_grad():
            for mean, current in zip(_tensors(averaged), _tensors(net), strict=True):
                if mean.is_floating_point():
                    mean.lerp_(current, share)
                else:
                    mean.copy_(current)


def _tensors(net: nn.Module) -> list[Tensor]:
    return [*net.parameters(), *net.buffers()]


@dataclass(frozen=True, kw_only=True)
class EMA(Averaging):
    """Exponential moving average: decay * average + (1 - decay) * weights after every step.

    With `warmup` the decay after t steps is at most (1 + t) / (10 + t), so that the average soon forgets the initial
    weights; Gowal et al. 2020 and Rebuffi et al. 2021 train so, with a decay of 0.995.
    """

    name: ClassVar[str] = "ema"
    decay: float = 0.999
    warmup: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.decay, bool | str) or not 0 <= self.decay < 1:
            raise invalid("recipe.averaging.decay", self.decay, "a number in [0, 1)")
        require_flag("recipe.averaging.warmup", self.warmup)

    def share(self, step: int, steps_per_epoch: int, epochs: int) -> float:  # noqa: ARG002
        """1 - decay."""
        return 1 - (min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay)


@dataclass(frozen=True, kw_only=True)
class SWA(Averaging):
    """Stochastic weight averaging (Izmailov et al. 2018): the plain mean of the weights in the last part of training.

    Until then the average is a copy of the weights.

    Attributes:
        start: the fraction of all epochs after which averaging starts, at the beginning of an epoch.
        every: epoch or step: how often the weights enter the mean.
    """

    name: ClassVar[str] = "swa"
    batch_norm: str = "recompute"
    start: float = 0.75
    every: str = "epoch"

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.start, bool | str) or not 0 <= self.start < 1:
            raise invalid("recipe.averaging.start", self.start, "a fraction of all epochs, in [0, 1)")
        require_choice("recipe.averaging.every", self.every, ("epoch", "step"))

    def share(self, step: int, steps_per_epoch: int, epochs: int) -> float | None:
        """1 / n when the weights enter the mean for the n-th time."""
        unit = steps_per_epoch if self.every == "epoch" else 1
        if step % unit:
            return None
        return 1 / max(1, (step - self._first_epoch(epochs) * steps_per_epoch) // unit)

    def warning(self, epochs: int) -> str | None:
        """Of too few epochs from `start` on: the mean of one network is that network."""
        left = epochs - self._first_epoch(epochs)
        if left > (1 if self.every == "epoch" else 0):
            return None
        return (
            f"recipe.averaging.start = {self.start:g} leaves {left} of trainer.max_epochs = {epochs} to average, so "
            "the swa weights will equal the raw ones; set an earlier start or more epochs"
        )

    def _first_epoch(self, epochs: int) -> int:
        """The first epoch, counted from 0, whose weights enter the mean."""
        return math.ceil(Fraction(str(self.start)) * epochs)


@torch.no_grad()
def recompute_statistics(net: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace BatchNorm's running statistics by the means of its batch statistics, each weighted by the batch's size.

    batches: images (B, C, H, W) in [0, 1]. All other layers are in evaluation mode, without dropout, as when the
    network is used.
    """
    norms = [module for module in net.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms:
        return
    modes = {module: module.training for module in net.modules()}
    momenta = {norm: norm.momentum for norm in norms}
    net.eval()
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
    seen = 0
    for x in batches:
        seen += len(x)
        for norm in norms:
            norm.momentum = len(x) / seen
        net(x)
    for norm, momentum in momenta.items():
        norm.momentum = momentum
    for module, mode in modes.items():
        module.training = mode
