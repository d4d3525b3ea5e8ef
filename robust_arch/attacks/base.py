"""What every attack guarantees, whatever its implementation does."""

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from fractions import Fraction
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from robust_arch import __version__
from robust_arch.attacks.threat import ThreatModel
from robust_arch.errors import invalid, require_integer


def require_inside(key: str, attack: "Attack") -> None:
    """Raise InputError, naming `key`, for an attack that leaves the threat model, as some training attacks do."""
    if attack.reach > 1:
        allowed = f"an attack that stays within eps; this one reaches {float(attack.reach):g} eps and is for training"
        raise invalid(key, type(attack).__name__, allowed)


def require_count(key: str, value: object) -> None:
    """Raise InputError unless the setting `attack.<key>` is an integer of at least 1."""
    require_integer(f"attack.{key}", value, 1)


def image_gradient(value: Tensor, x: Tensor) -> Tensor:
    """The gradient of a scalar, computed by a network, with respect to its images x.

    Raises:
        InputError: for a network without a gradient, such as one whose logits come from argmax or are detached.
    """
    gradient = torch.autograd.grad(value, x, allow_unused=True)[0] if value.requires_grad else None
    if gradient is None:
        raise invalid("net", "logits without a gradient", "logits that are differentiable in the images")
    return gradient


@contextmanager
def _labels_checked(net: nn.Module, y: Tensor) -> Iterator[None]:
    """Raise InputError for a label beyond the number of classes, from the first logits computed inside."""

    def look(module: nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> None:  # noqa: ARG001
        hook.remove()
        classes = logits.shape[1]
        if y.ndim == 2 and y.shape[1] != classes:
            raise invalid("y", tuple(y.shape), f"one probability per class, of which there are {classes}")
        if int(y.max()) >= classes:
            raise invalid("y", int(y.max()), f"labels below the number of classes, {classes}")

    hook = net.register_forward_hook(look)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def undisturbed(net: nn.Module) -> Iterator[None]:
    """Evaluation mode and no parameter gradients inside; modes and requires_grad are restored afterwards."""
    modes = {module: module.training for module in net.modules()}
    trainable = {parameter: parameter.requires_grad for parameter in net.parameters()}
    net.eval()
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter, requires_grad in trainable.items():
            parameter.requires_grad_(requires_grad)


@contextmanager
def _preserved_random_state(device: torch.device) -> Iterator[None]:
    """Restore the global random states of torch, numpy and Python afterwards."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002


@runtime_checkable
class Attackable(Protocol):
    """A network that attacks see in another form: the same logits in evaluation mode up to rounding, faster."""

    def attacked(self, x: Tensor) -> nn.Module:
        """That form, with the current weights. x: the images to come, (B, C, H, W) in [0, 1]."""


def other_form(net: nn.Module, x: Tensor) -> nn.Module:
    """The form of an `Attackable` that attacks see; any other network itself. x: the images to come."""
    return net.attacked(x) if isinstance(net, Attackable) else net


class Attack(ABC):
    """An attack: a subclass implements `run`; the call around it gives the guarantees.

    The result lies inside the ball and the box, exactly. The network's mode, its parameters' requires_grad and
    gradients, its buffers and the global random state are afterwards bit for bit what they were. Works for one
    example and under `torch.no_grad` and `torch.inference_mode`. Calls are stateless: the randomness of an example
    follows from (seed, its index) alone.
    """

    block_size: int | None = None
    """Examples that one call must see together, for attacks whose result depends on it; else None.

    Such an attack decides by itself when an image is misclassified, so `run` is given an `Attackable` as it is.
    """

    @property
    def reach(self) -> Fraction:
        """Radius of the ball in which the result lies, in units of eps; above 1 only for training."""
        return Fraction(1)

    @property
    def min_classes(self) -> int:
        """Classes below which the attack is not defined."""
        return 2

    @property
    def takes_soft_labels(self) -> bool:
        """Whether `y` may be probabilities (B, K), as training with mixed or smoothed labels needs."""
        return False

    @property
    def implementation(self) -> str:
        """The package whose code it is, with its version."""
        return f"robust_arch {__version__}"

    @abstractmethod
    def run(self, net: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, seed: int, index: Tensor) -> Tensor:
        """The attack itself; its result need not be projected. Gradients are enabled, `net` is in evaluation mode."""

    def __call__(
        self,
        net: nn.Module,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        *,
        seed: int = 0,
        index: Tensor | None = None,
        check: bool = True,
    ) -> Tensor:
        """Adversarial images for x.

        Args:
            net: images (B, C, H, W) in [0, 1] to logits (B, K); an `Attackable` is attacked in its other form.
            x: clean images (B, C, H, W) in [0, 1], floating point.
            y: labels (B,), int64; for an attack that takes soft labels also probabilities (B, K), floating point.
            threat: the norm ball.
            seed: with `index`, decides all randomness.
            index: (B,) positions of the examples in their data set, by default 0 to B - 1.
            check: False leaves out what makes the host wait for the device: the ranges of x and y, finite results.

        Raises:
            InputError: for other shapes, images or labels, or a network without a gradient where one is needed.
            FloatingPointError: if the network's gradients are not finite.
        """
        index = torch.arange(len(x), device=x.device) if index is None else index
        _check_inputs(x, y, index, ranges=check, soft=self.takes_soft_labels)
        if not len(x):
            return x.detach().clone()
        # tensors made under inference_mode cannot carry gradients: clones made outside it can
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast(x.device.type, enabled=torch.is_autocast_enabled(x.device.type)),
            _preserved_random_state(x.device),
        ):
            x, y, index = x.detach().clone(), y.detach().clone(), index.detach().clone()
            with torch.no_grad():
                region = threat.scaled(self.reach).region(x)
            attacked = other_form(net, x) if self.block_size is None else net
            with undisturbed(attacked), _labels_checked(attacked, y) if check else nullcontext():
                x_adv = self.run(attacked, x, y, threat, seed, index).detach()
            if check and not bool(torch.isfinite(x_adv).all()):
                raise FloatingPointError(f"{self} returned images that are not finite: the network's gradients are not")
            return region.project(x_adv)


def _check_inputs(x: Tensor, y: Tensor, index: Tensor, *, ranges: bool, soft: bool) -> None:
    """Raise InputError for what `Attack.__call__` does not take; checking ranges waits for a GPU."""
    if x.ndim != 4 or x.dtype not in (torch.float32, torch.float64):
        raise invalid("x", (tuple(x.shape), str(x.dtype)), "float32 or float64 images of shape (B, C, H, W)")
    probabilities = soft and y.ndim == 2 and len(y) == len(x) and y.is_floating_point()
    if not probabilities and (y.shape != x.shape[:1] or y.dtype != torch.int64):
        allowed = f"int64 labels of shape ({len(x)},)" + f", or probabilities ({len(x)}, K)" * soft
        raise invalid("y", (tuple(y.shape), str(y.dtype)), allowed)
    if index.shape != x.shape[:1]:
        raise invalid("index", tuple(index.shape), f"one position per example, shape ({len(x)},)")
    if ranges and len(x):
        low, high = (float(bound) for bound in x.detach().aminmax())
        if not (low >= 0 and high <= 1):
            raise invalid("x", (low, high), "images in [0, 1]; normalisation belongs inside the network")
        if (least := y.min().item()) < 0:
            raise invalid("y", least, "labels of at least 0")
