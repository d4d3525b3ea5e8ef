"""Adversarial weight perturbation, AWP (Wu, Xia, Wang, "Adversarial Weight Perturbation Helps...", NeurIPS 2020)."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robust_arch.errors import invalid, require_integer

_TINY = 1e-20  # of the published code, against a gradient of 0


@dataclass(frozen=True, kw_only=True)
class AWP:
    """The gradient of a step is taken at weights w + gamma ||w|| g / ||g||, g the gradient of its loss at w.

    The norms are those of each tensor by itself. As in the published code, only parameters of more than one dimension
    with `weight` in their names move: convolutions and linear layers, neither biases nor normalisation.

    Attributes:
        gamma: size of the perturbation, None for none. The paper uses 0.01 with sat and 0.005 with trades.
        warmup_epochs: epochs without perturbation at the beginning.
    """

    gamma: float | None = None
    warmup_epochs: int = 0

    def __post_init__(self) -> None:
        if self.gamma is not None and (isinstance(self.gamma, bool | str) or not 0 < self.gamma < math.inf):
            raise invalid("recipe.awp.gamma", self.gamma, "a finite number greater than 0, or null for none")
        require_integer("recipe.awp.warmup_epochs", self.warmup_epochs, 0)
        if self.gamma is None and self.warmup_epochs:
            raise invalid("recipe.awp.warmup_epochs", self.warmup_epochs, "0 where recipe.awp.gamma is null")

    def __str__(self) -> str:
        """As in the recipe's name in records, like `awp0.005` or `awp0.005:warmup10`."""
        return f"awp{self.gamma:g}" + (f":warmup{self.warmup_epochs}" if self.warmup_epochs else "")

    def is_active(self, epoch: int) -> bool:
        """Whether the weights are perturbed in this epoch, counted from 0."""
        return self.gamma is not None and epoch >= self.warmup_epochs

    def perturb(
        self, net: nn.Module, loss: Tensor, mean: Callable[[list[Tensor]], list[Tensor]]
    ) -> list[tuple[Tensor, Tensor]]:
        """Perturb the weights of `net` uphill on `loss`, in place; returns each with its value before.

        mean: of gradients over the devices, so that all perturb alike.
        """
        named = net.named_parameters()
        weights = [each for name, each in named if each.requires_grad and each.ndim > 1 and "weight" in name]
        found = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
        gradients = mean(list(found))
        with torch.no_grad():
            before: list[tuple[Tensor, Tensor]] = [(weight, weight.clone()) for weight in weights]
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.add_(gradient * (self.gamma * weight.norm() / (gradient.norm() + _TINY)))
        torch.clear_autocast_cache()  # holds the weights in bfloat16, as they were
        return before


def restore(before: list[tuple[Tensor, Tensor]]) -> None:
    """Undo `AWP.perturb`, to the last bit."""
    with torch.no_grad():
        for weight, value in before:
            weight.copy_(value)


@contextmanager
def preserved_buffers(net: nn.Module) -> Iterator[None]:
    """Restore the buffers of `net`, such as BatchNorm's running statistics, afterwards."""
    before = [(buffer, buffer.clone()) for buffer in net.buffers()]
    try:
        yield
    finally:
        restore(before)
