"""Pre-activation WideResNet (Zagoruyko and Komodakis 2016) whose stages have widths and depths of their own.

Block and head follow the network of Huang et al., NeurIPS 2021, so that its published weights fit.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any, Self

from robust_arch.architectures.family import KeyNames
from robust_arch.architectures.layers import ACTIVATIONS
from robust_arch.architectures.options import as_short_as_possible, per_stage, require_choice, require_number
from robust_arch.architectures.preactivation import BLOCKS, BlockSettings, PreActFamily
from robust_arch.architectures.residual import Stage
from robust_arch.architectures.spec import ArchSpec
from robust_arch.architectures.stems import StemOptions

PADDINGS = ("symmetric", "same")


@dataclass(frozen=True)
class WideResNetOptions(StemOptions):
    """Options of the family; a value that may differ between stages is one value, or a list of one per stage.

    Attributes:
        stem: cifar, a 3x3 convolution at stride 1, or imagenet, a 7x7 one at stride 2 and a max-pooling at stride 2.
        block: basic, or bottleneck, whose output has four times the stage's width.
        activation: per stage instead of `arch.activation`, which remains the head's.
        dropout: per stage instead of `arch.dropout`.
        se_ratio: channels of a squeeze-excitation after each branch, as a part of the block's output; 0 for none.
        padding: symmetric, one row and column of zeros on each side of a 3x3 convolution; or same, at stride 2 at the
            end only where the size is even, as TensorFlow pads (Gowal et al. 2020).
    """

    block: str | tuple[str, ...] = "basic"
    activation: str | tuple[str, ...] | None = None
    dropout: float | tuple[float, ...] | None = None
    se_ratio: float = 0.0
    padding: str = "symmetric"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("padding", self.padding, PADDINGS)
        require_number("se_ratio", self.se_ratio, 0, 16)
        object.__setattr__(self, "se_ratio", float(self.se_ratio))

    def for_stages(self, stages: int) -> Self:
        """One value instead of a list of equal ones."""
        keys = ("block", "activation", "dropout")
        return replace(self, **{key: as_short_as_possible(key, getattr(self, key), stages) for key in keys})

    def stage(self, key: str, stages: int, allowed: Any, default: Any = None) -> tuple[Any, ...]:
        """The value of `key` in each stage; `default` replaces null. allowed: names, or None for a probability."""
        values = tuple(default if each is None else each for each in per_stage(key, getattr(self, key), stages))
        for value in values:
            if allowed is None:
                require_number(key, value, 0, 1)
            else:
                require_choice(key, value, allowed)
        return values


_SYMMETRIC = {"padding": ("symmetric",)}
_BLOCK = re.compile(r"stages\.(\d+)\.(\d+)\.(.+)")


def _published(key: str, *, stage: str, first: int, stem: str) -> str:
    """`key` in a layout whose stages are named `stage` with numbers from `first`, and whose stem is named `stem`."""
    if match := _BLOCK.fullmatch(key):
        number, block, tensor = match.groups()
        return f"{stage}{int(number) + first}.layer.{block}.{tensor.replace('shortcut', 'convShortcut')}"
    module, tensor = key.split(".")
    return f"{({'stem': stem, 'bn': 'bn1'}).get(module, module)}.{tensor}"


_GOWAL = {"bn1": "batchnorm_0", "conv1": "conv_0", "bn2": "batchnorm_1", "conv2": "conv_1", "activation1": "relu_0"}
_GOWAL |= {"bn3": "batchnorm_2", "conv3": "conv_2", "activation2": "relu_1", "activation3": "relu_2"}
_GOWAL_OUTSIDE = {"stem": "init_conv", "bn": "batchnorm", "activation": "relu", "fc": "logits"}


def _gowal(key: str) -> str:
    """The names of Gowal et al. 2020: `layer.0.block.0.conv_0.weight`."""
    if match := _BLOCK.fullmatch(key):
        stage, block, tensor = match.groups()
        module, rest = tensor.split(".", 1)
        rest = rest.replace("fc.0.", "fc1.").replace("fc.2.", "fc2.")
        return f"layer.{stage}.block.{block}.{_GOWAL.get(module, module)}.{rest}"
    module, tensor = key.split(".")
    return f"{_GOWAL_OUTSIDE[module]}.{tensor}"


class WideResNetFamily(PreActFamily):
    """Three stages of basic or bottleneck blocks; the closed-form cost counts convolutions and linear layers."""

    strides: tuple[int, ...] = (1, 2, 2)
    has_dropout = True
    options = WideResNetOptions
    # huang2021: also RobustBench's files; trades: also the code of MART and AWP, all of which save a second first
    # stage, sub_block1, that their forward pass leaves out; gowal2020: also Rebuffi et al. 2021, Wang et al. 2023, and
    # RaWRN (Peng et al. 2023), whose squeeze-excitation is that of torchvision
    published_keys = MappingProxyType(
        {
            "huang2021": KeyNames(partial(_published, stage="blocks.", first=0, stem="stem_conv"), options=_SYMMETRIC),
            "trades": KeyNames(
                partial(_published, stage="block", first=1, stem="conv1"), unused=("sub_block1.",), options=_SYMMETRIC
            ),
            "gowal2020": KeyNames(
                _gowal, as_convolutions=("se.fc.0.weight", "se.fc.2.weight"), options={"padding": ("same",)}
            ),
        }
    )
    raw_shortcut = True
    """Whether the shortcut starts from raw x, not from act(BN(x)), where the width stays and the stride is 2."""

    def plan(self, spec: ArchSpec | None, depths: Sequence[Any], widths: Sequence[Any]) -> list[Stage]:
        """The stages of these depths and widths, which may be arrays."""
        chosen = WideResNetOptions.read(spec.options if spec else ())
        number, activation, dropout = len(self.strides), "relu", 0.0
        if spec is not None:
            activation, dropout = spec.activation, spec.dropout
        blocks = chosen.stage("block", number, BLOCKS)
        activations = chosen.stage("activation", number, ACTIVATIONS, activation)
        dropouts = chosen.stage("dropout", number, None, dropout)
        settings = [
            BlockSettings(each, drop, chosen.se_ratio, self.raw_shortcut, chosen.padding == "same")
            for each, drop in zip(activations, dropouts, strict=True)
        ]
        stages = zip(blocks, depths, widths, self.strides, settings, strict=True)
        return [Stage(BLOCKS[block], *rest) for block, *rest in stages]

    def is_bounded(self, spec: ArchSpec) -> bool:
        """With squeeze-excitation, which multiplies features with features, there is no bound."""
        chosen = WideResNetOptions.read(spec.options)
        return chosen.stem == "cifar" and not chosen.se_ratio


FAMILY = WideResNetFamily()
