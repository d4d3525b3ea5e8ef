"""A network of the user's own: a class or function by its full name, with its arguments."""

import json
import re
import shlex
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from hydra.utils import instantiate
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from robust_arch.architectures.family import ImageShape
from robust_arch.architectures.spec import ArchSpec
from robust_arch.common.identity import short_hash
from robust_arch.common.plain import is_bounded, shown
from robust_arch.errors import InputError, invalid

TARGET = "_target_"
"""The key of `arch` that names the class or function."""
_FULL_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
_WORD = re.compile(r"[a-zA-Z_][\w./-]*")  # text that needs no quotation marks in an override
_LITERALS = ("true", "false", "null", "nan", "inf")  # words that Hydra reads as values of another type
_READABLE = re.compile(r"[\w.=+,\[\]-]{1,120}")


@dataclass(frozen=True)
class CustomArch:
    """A network that the user's own code builds; nothing is imported before `build`.

    Attributes:
        target: full name of a class or function that returns a module from normalised images (B, C, H, W) to logits
            (B, K).
        arguments: its keyword arguments, plain data. A group with a `_target_` of its own is built first.
    """

    target: str
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def family(self) -> str:
        """What the records say instead of a family."""
        return "custom"

    def __post_init__(self) -> None:
        if not isinstance(self.target, str) or not _FULL_NAME.fullmatch(self.target):
            raise invalid("arch._target_", self.target, "the full name of a class or function, like my_package.MyNet")
        try:
            plain = json.loads(json.dumps(dict(self.arguments), allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise invalid("arch", shown(self.arguments), f"arguments of plain data ({error})") from None
        if not is_bounded(plain) or not all(map(str.isidentifier, plain)):
            raise invalid("arch", shown(self.arguments), "arguments by name, of plain data that is not nested deeply")
        object.__setattr__(self, "arguments", plain)

    @property
    def name(self) -> str:
        """Target and arguments, like `my_package.MyNet-width=32`; a hash instead of long or nested arguments."""
        name = "-".join([self.target, *(f"{key}={_text(value)}" for key, value in sorted(self.arguments.items()))])
        return name if _READABLE.fullmatch(name) else f"{self.target}-{short_hash(self.arguments)}"

    @property
    def described(self) -> str:
        """Its name, for errors."""
        return self.name

    @property
    def words(self) -> str:
        """The overrides that name this network, like `arch._target_=my_package.MyNet arch.width=32`."""
        return " ".join(shlex.quote(f"arch.{key}={_text(value)}") for key, value in self.to_dict().items())

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types: the target as `_target_`, and its arguments."""
        return {TARGET: self.target, **self.arguments}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "CustomArch":
        """The inverse of `to_dict`; nothing is imported."""
        return cls(values[TARGET], {key: value for key, value in values.items() if key != TARGET})

    def build(self, num_classes: int, image_shape: ImageShape) -> tuple[nn.Module, torch.memory_format]:
        """A new network, and the memory format of its weights: channels last, unless its code needs contiguous tensors.

        Code that calls `view` on a feature map does. The network draws from torch's global random state.

        Raises:
            InputError: if the target cannot be imported or called, or does not return a module from images
                (B, *image_shape) to logits (B, num_classes).
        """
        try:
            network = instantiate(self.to_dict(), _convert_="all")
        except Exception as error:  # the user's own code can raise anything
            raise InputError(f"arch: {self.target} cannot be built: {_reason(error.__cause__ or error)}") from error
        if not isinstance(network, nn.Module):
            raise invalid("arch._target_", self.target, f"a torch.nn.Module; it returns {type(network).__name__}")
        self._require_logits(network.eval(), (1, num_classes), image_shape)
        layout = fitting_layout(network, torch.zeros(1, *image_shape))
        return network.train(), layout

    def _require_logits(self, network: nn.Module, shape: tuple[int, int], image_shape: ImageShape) -> None:
        """Raise InputError unless `shape[0]` images give logits of that shape."""
        images = (shape[0], *image_shape)
        try:
            logits = network(torch.zeros(images))
        except Exception as error:  # the user's own code can raise anything
            takes = f"a network that takes images of shape {images}, as this data set has; it raised {_reason(error)}"
            raise invalid("arch._target_", self.target, takes) from error
        if not isinstance(logits, Tensor):
            mode = "training" if network.training else "evaluation"
            returns = f"a network that returns logits alone; in {mode} mode it returns {type(logits).__name__}"
            raise invalid("arch._target_", self.target, returns)
        if logits.shape != shape:
            fitting = (
                f"logits of shape {shape}, one per class of the data set; it returns {tuple(logits.shape)}: set its "
                f"argument for the number of classes, like arch.num_classes={shape[1]}"
            )
            raise invalid("arch._target_", self.target, fitting)

    @torch.enable_grad()  # without gradients, attention takes a path that torch does not count
    def measure(self, num_classes: int, image_shape: ImageShape) -> tuple[int, int]:
        """Trainable parameters, and multiply-accumulates per image: half of what torch's FLOP counter counts.

        It counts matrix products, convolutions and attention. Both modes of the network are tried.

        Raises:
            InputError: as `build`, and for a network without parameters or without counted operations.
        """
        with torch.random.fork_rng(devices=[]):
            network, _ = self.build(num_classes, image_shape)
            # attention as two matrix products: the fused kernels of some devices are not counted
            with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
                network.eval()(torch.zeros(1, *image_shape))
            self._require_logits(network.train(), (2, num_classes), image_shape)
        params = sum(each.numel() for each in network.parameters() if each.requires_grad)
        macs = counter.get_total_flops() // 2
        if not params or not macs:
            counted = f"a network that is trained: {params} trainable parameters, {macs} multiply-accumulates counted"
            raise invalid("arch._target_", self.target, counted)
        return params, macs


def fitting_layout(network: nn.Module, images: Tensor) -> torch.memory_format:
    """Channels last, or contiguous for a network whose code fails otherwise. images: (B, C, H, W), to try it on."""
    try:  # on a copy: from channels last, not every stride comes back
        deepcopy(network).to(memory_format=torch.channels_last)(images)
    except Exception:  # the user's own code can raise anything
        return torch.contiguous_format
    return torch.channels_last


AnyArch = ArchSpec | CustomArch
"""What a network is: one of a family, or one of the user's own."""


@cache
def measured(spec: CustomArch, num_classes: int, image_shape: ImageShape) -> tuple[int, int]:
    """`CustomArch.measure`, once per process."""
    return spec.measure(num_classes, image_shape)


def _text(value: Any) -> str:
    """A value as an override takes it."""
    if isinstance(value, str) and _WORD.fullmatch(value) and value.lower() not in _LITERALS:
        return value
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{_text(key)}:{_text(inner)}' for key, inner in value.items())}}}"
    if isinstance(value, list):
        return f"[{','.join(map(_text, value))}]"
    return json.dumps(value)


def _reason(error: BaseException) -> str:
    """Kind and text of an error, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
