"""RobustResNet (Huang et al. 2023): a WideResNet of RobustResBlocks, with widths and depths per stage.

The published block feeds the raw x to its first convolution, so that its first BatchNorm only serves the projection of
the shortcut; blocks with an identity shortcut have none here, as its parameters would get no gradient.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from robust_arch.architectures.counting import Count, Size, at_least_one, convolution, linear, norm, pixels
from robust_arch.architectures.family import KeyNames
from robust_arch.architectures.layers import (
    SqueezeExcitation,
    activation_copies,
    activation_only,
    activation_params,
    make_activation,
)
from robust_arch.architectures.preactivation import PreActFamily
from robust_arch.architectures.residual import ResidualBlock, Stage
from robust_arch.architectures.spec import ArchSpec
from robust_arch.architectures.stems import StemOptions
from robust_arch.errors import require_flag, require_integer


@dataclass(frozen=True)
class RobustResNetOptions(StemOptions):
    """Options of the family.

    Attributes:
        stem: cifar, a 3x3 convolution at stride 1, or imagenet, a 7x7 one at stride 2 and a max-pooling at stride 2.
        scales: groups of channels that pass the 3x3 convolutions one after the other, each with the one before added.
        base_width: channels of one of the convolution's groups where the stage's width is 160.
        cardinality: groups of each 3x3 convolution.
        se_reduction: channels of the block per channel inside the squeeze-excitation.
        preactivated: whether the first convolution reads act(BN(x)), as in other pre-activation networks, or raw x.
    """

    scales: int = 8
    base_width: int = 10
    cardinality: int = 4
    se_reduction: int = 64
    preactivated: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, least in (("scales", 2), ("base_width", 1), ("cardinality", 1), ("se_reduction", 1)):
            require_integer(f"arch.options.{key}", getattr(self, key), least)
        require_flag("arch.options.preactivated", self.preactivated)

    def inner(self, width: Any) -> Any:
        """Channels of each 3x3 convolution where the stage has this width; of an integer or an array."""
        return at_least_one(width * self.base_width // 160) * self.cardinality

    def squeezed(self, channels: Any) -> Any:
        """Channels inside the squeeze-excitation; of an integer or an array."""
        return at_least_one(channels // self.se_reduction)


class RobustResBlock(ResidualBlock):
    """conv1x1, hierarchical grouped conv3x3, conv1x1, and residual squeeze-excitation.

    (B, c_in, H, W) to (B, 4 * width, H/stride, W/stride): h + SE(BN(h)) + shortcut, h being the output of the last
    convolution.
    settings: the options, and the activation's name.
    """

    expansion: ClassVar[int] = 4

    def __init__(self, c_in: int, width: int, stride: int, settings: tuple[RobustResNetOptions, str]) -> None:
        super().__init__(c_in, width, stride, settings)
        chosen, activation = settings
        c_out = self.expansion * width
        inner = self.inner = chosen.inner(width)
        projects = c_in != c_out or stride != 1
        self.preactivated, self.has_bn1 = chosen.preactivated, chosen.preactivated or projects
        self.scales, self.is_strided = chosen.scales, stride != 1
        if self.has_bn1:
            self.bn1 = nn.BatchNorm2d(c_in)
            self.activation1 = make_activation(activation)
        self.conv1 = nn.Conv2d(c_in, inner * chosen.scales, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner * chosen.scales)
        self.activation2, self.activation3 = make_activation(activation), make_activation(activation)
        convolutions = [
            nn.Conv2d(inner, inner, 3, stride, padding=1, groups=chosen.cardinality, bias=False)
            for _ in range(chosen.scales - 1)
        ]
        self.conv2 = nn.ModuleList(convolutions)
        self.bn3 = nn.ModuleList([nn.BatchNorm2d(inner) for _ in convolutions])
        self.pool = nn.AvgPool2d(3, stride, padding=1) if self.is_strided else nn.Identity()
        self.conv3 = nn.Conv2d(inner * chosen.scales, c_out, 1, bias=False)
        self.se_bn = nn.BatchNorm2d(c_out)
        self.se = SqueezeExcitation(c_out, chosen.squeezed(c_out), bias=False)
        self.shortcut = nn.Conv2d(c_in, c_out, 1, stride, bias=False) if projects else nn.Identity()
        self.projects = projects

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, c_in, H, W)."""
        activated = self.activation1(self.bn1(x)) if self.has_bn1 else x
        hidden = self.conv1(activated if self.preactivated else x)
        hidden = self.activation2(self.bn2(hidden))
        parts = [hidden[:, i * self.inner : (i + 1) * self.inner] for i in range(self.scales)]
        outs: list[Tensor] = []
        for i in range(self.scales - 1):
            # with a stride the parts are independent, as their sizes differ from those of the outputs
            part = parts[i] if i == 0 or self.is_strided else parts[i] + outs[-1]
            outs.append(self.activation3(self.bn3[i](self.conv2[i](part))))
        out: Tensor = self.conv3(torch.cat([*outs, self.pool(parts[self.scales - 1])], 1))
        total: Tensor = out + self.shortcut(activated if self.projects else x) + self.se(self.se_bn(out))
        return total

    @classmethod
    def count(
        cls, c_in: Any, width: Any, stride: int, before: Size, after: Size, settings: tuple[RobustResNetOptions, str]
    ) -> Count:
        """Its cost on feature maps of these sizes before and after the stride."""
        chosen, activation = settings
        c_out, inner, act = cls.expansion * width, chosen.inner(width), Count(activation_params(activation))
        projects = (c_in != c_out) | (stride != 1)
        entering = (norm(c_in) + act) * (projects | chosen.preactivated) + convolution(c_in, c_out, 1, after) * projects
        wide = chosen.scales * inner
        grouped = convolution(inner, inner, 3, after, groups=chosen.cardinality) + norm(inner)
        branch = convolution(c_in, wide, 1, before) + norm(wide) + act * 2 + grouped * (chosen.scales - 1)
        squeezed = chosen.squeezed(c_out)
        excitation = linear(c_out, squeezed, bias=False) + linear(squeezed, c_out, bias=False)
        total: Count = entering + branch + convolution(wide, c_out, 1, after) + norm(c_out) + excitation
        return total

    @classmethod
    def kept(
        cls, c_in: int, width: int, stride: int, before: Size, after: Size, settings: tuple[RobustResNetOptions, str]
    ) -> int:
        """Numbers per image kept for the backward pass."""
        chosen, activation = settings
        copies, alone = activation_copies(activation), activation_only(activation)
        c_out, inner = cls.expansion * width, chosen.inner(width)
        wide = chosen.scales * inner
        projects = c_in != c_out or stride != 1
        kept = (1 + copies * (projects or chosen.preactivated)) * c_in * pixels(before)
        kept += (1 + copies) * wide * pixels(before)
        # each 3x3 convolution's BatchNorm and activation; the sums that all but the first one read, without a stride
        sums = 0 if stride != 1 else chosen.scales - 2
        kept += ((1 + alone) * (chosen.scales - 1) + sums) * inner * pixels(after)
        # what conv3, the last BatchNorm and the product read; the three vectors of squeeze-excitation
        return int(kept + (wide + 2 * c_out) * pixels(after) + 2 * c_out + chosen.squeezed(c_out))


_BLOCK = re.compile(r"stages\.(\d+)\.(\d+)\.(.+)")


def _published(key: str) -> str:
    """The names of the published code: `blocks.0.layer.0.conv1.weight`."""
    if match := _BLOCK.fullmatch(key):
        stage, block, tensor = match.groups()
        return f"blocks.{stage}.layer.{block}.{tensor.replace('shortcut', 'shortcut.0')}"
    module, tensor = key.split(".")
    return f"{({'stem': 'stem_conv', 'bn': 'norm1'}).get(module, module)}.{tensor}"


class RobustResNetFamily(PreActFamily):
    """Three stages of RobustResBlocks, whose output has four times the stage's width."""

    strides = (1, 2, 2)
    options = RobustResNetOptions
    # every block but the first of a stage saves a BatchNorm that it does not use
    _unused = tuple(f"blocks.{stage}.layer.{block}.bn1." for stage in range(3) for block in range(1, 100))
    published_keys = MappingProxyType(
        {"huang2023": KeyNames(_published, unused=_unused, options={"preactivated": (False,)})}
    )

    def plan(self, spec: ArchSpec | None, depths: Sequence[Any], widths: Sequence[Any]) -> list[Stage]:
        """The stages of these depths and widths, which may be arrays."""
        settings = (RobustResNetOptions.read(spec.options if spec else ()), spec.activation if spec else "relu")
        stages = zip(depths, widths, self.strides, strict=True)
        return [Stage(RobustResBlock, depth, width, stride, settings) for depth, width, stride in stages]

    def is_bounded(self, spec: ArchSpec) -> bool:  # noqa: ARG002
        """Squeeze-excitation multiplies features with features, so there is no bound."""
        return False


FAMILY = RobustResNetFamily()
