"""Post-activation ResNet (He et al. 2016), with widths and depths by stage.

By default the usual variant for 32x32 images: a 3x3 stem at stride 1, no pooling before the stages, projections with
BatchNorm.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from robust_arch.architectures.counting import Count, Size, at_least_one, convolution, halved, pixels
from robust_arch.architectures.counting import norm as norm_count
from robust_arch.architectures.family import BoundedNetwork, KeyNames, StagedNetwork
from robust_arch.architectures.initialisation import initialise_convolutions
from robust_arch.architectures.layers import (
    GlobalAveragePool,
    activation_copies,
    activation_lipschitz,
    activation_only,
    activation_params,
    make_activation,
    stage_bounds,
)
from robust_arch.architectures.options import require_choice
from robust_arch.architectures.residual import ResidualBlock, ResidualFamily, Stage, staged
from robust_arch.architectures.spec import ArchSpec
from robust_arch.architectures.stems import StemOptions, stem_convolution, stem_pool
from robust_arch.errors import invalid, require_integer


@dataclass(frozen=True)
class ResNetOptions(StemOptions):
    """Options of the family.

    Attributes:
        stem: cifar, a 3x3 convolution at stride 1, or imagenet, a 7x7 one at stride 2 and a max-pooling at stride 2.
        block: basic, or bottleneck, whose output has four times the stage's width.
        base_width: channels of a bottleneck's 3x3 convolution where the stage's width is 64; 128 in WRN-50-2.
    """

    block: str = "basic"
    base_width: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("block", self.block, BLOCKS)
        require_integer("arch.options.base_width", self.base_width, 1)
        if self.block == "basic" and self.base_width != 64:
            raise invalid("arch.options.base_width", self.base_width, "64 for basic blocks, which do not read it")

    def inner(self, width: Any) -> Any:
        """Channels of the 3x3 convolution of a bottleneck; of an integer or an array."""
        return at_least_one(width * self.base_width // 64)


Settings = tuple[ResNetOptions, str]
"""Options, and the activation's name."""


def _projection_count(c_in: Any, c_out: Any, stride: int, after: Size) -> Count:
    count: Count = (convolution(c_in, c_out, 1, after) + norm_count(c_out)) * ((c_in != c_out) | (stride != 1))
    return count


class _Block(ResidualBlock):
    """A branch of convolutions with BatchNorm, plus shortcut, then act."""

    def __init__(self, c_in: int, width: int, stride: int, settings: Settings) -> None:
        super().__init__(c_in, width, stride, settings)
        _, activation = settings
        self.activation = make_activation(activation)
        self.out_activation = make_activation(activation)

    def add_shortcut(self, c_in: int, c_out: int, stride: int) -> None:
        """Add the shortcut; after the branch, as the order decides which weights a seed draws."""
        self.shortcut = nn.Sequential()
        if c_in != c_out or stride != 1:
            self.shortcut = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, c_in, H, W)."""
        out: Tensor = self.out_activation(self.branch(x) + self.shortcut(x))
        return out

    @abstractmethod
    def branch(self, x: Tensor) -> Tensor:
        """What is added to the shortcut."""

    @abstractmethod
    def branch_bound(self, norm: Callable[[nn.Module], float]) -> float:
        """Upper bound of the branch's l2 Lipschitz constant."""

    def lipschitz_bound(self, norm: Callable[[nn.Module], float]) -> float:
        """Upper bound of the l2 Lipschitz constant in evaluation mode, L(.) being the layers' operator norms.

        L(act) (L(shortcut) + L(branch)), where L(branch) of a basic block is L(conv1) L(bn1) L(act) L(conv2) L(bn2),
        and L(shortcut) is 1 if it is the identity, else the product of its two layers. norm: the l2 operator norm of a
        layer.
        """
        shortcut = math.prod(norm(layer) for layer in self.shortcut)
        return activation_lipschitz(self.out_activation) * (shortcut + self.branch_bound(norm))


class BasicBlock(_Block):
    """conv3x3-BN-act-conv3x3-BN plus shortcut, then act: (B, c_in, H, W) to (B, width, H/stride, W/stride)."""

    expansion = 1

    def __init__(self, c_in: int, width: int, stride: int, settings: Settings) -> None:
        super().__init__(c_in, width, stride, settings)
        self.conv1 = nn.Conv2d(c_in, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.add_shortcut(c_in, width, stride)

    def branch(self, x: Tensor) -> Tensor:
        """What is added to the shortcut."""
        out: Tensor = self.bn2(self.conv2(self.activation(self.bn1(self.conv1(x)))))
        return out

    def branch_bound(self, norm: Callable[[nn.Module], float]) -> float:
        """Upper bound of the branch's l2 Lipschitz constant."""
        slope = activation_lipschitz(self.activation)
        return norm(self.conv1) * norm(self.bn1) * slope * norm(self.conv2) * norm(self.bn2)

    @classmethod
    def count(cls, c_in: Any, width: Any, stride: int, before: Size, after: Size, settings: Settings) -> Count:  # noqa: ARG003
        """Its cost on feature maps of these sizes before and after the stride."""
        layers = convolution(c_in, width, 3, after) + convolution(width, width, 3, after) + norm_count(width) * 2
        activations = Count(2 * activation_params(settings[1]))
        return layers + activations + _projection_count(c_in, width, stride, after)

    @classmethod
    def kept(cls, c_in: int, width: int, stride: int, before: Size, after: Size, settings: Settings) -> int:  # noqa: ARG003
        """Numbers per image kept for the backward pass, without the input, which the layer before keeps."""
        projects = c_in != width or stride != 1
        return (2 * (1 + activation_copies(settings[1])) + projects) * width * pixels(after)


class BottleneckBlock(_Block):
    """conv1x1-BN-act-conv3x3-BN-act-conv1x1-BN plus shortcut, then act; its output has four times `width` channels.

    The stride is that of the 3x3 convolution, as in torchvision.
    """

    expansion = 4

    def __init__(self, c_in: int, width: int, stride: int, settings: Settings) -> None:
        super().__init__(c_in, width, stride, settings)
        options, activation = settings
        inner = options.inner(width)
        self.conv1 = nn.Conv2d(c_in, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, bias=False)
        self.activation2 = make_activation(activation)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, self.expansion * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(self.expansion * width)
        self.add_shortcut(c_in, self.expansion * width, stride)

    def branch(self, x: Tensor) -> Tensor:
        """What is added to the shortcut."""
        hidden = self.activation(self.bn1(self.conv1(x)))
        hidden = self.activation2(self.bn2(self.conv2(hidden)))
        out: Tensor = self.bn3(self.conv3(hidden))
        return out

    def branch_bound(self, norm: Callable[[nn.Module], float]) -> float:
        """Upper bound of the branch's l2 Lipschitz constant."""
        slopes = activation_lipschitz(self.activation) * activation_lipschitz(self.activation2)
        layers = (self.conv1, self.bn1, self.conv2, self.bn2, self.conv3, self.bn3)
        return slopes * math.prod(map(norm, layers))

    @classmethod
    def count(cls, c_in: Any, width: Any, stride: int, before: Size, after: Size, settings: Settings) -> Count:
        """Its cost on feature maps of these sizes before and after the stride."""
        options, activation = settings
        inner, c_out = options.inner(width), cls.expansion * width
        layers = convolution(c_in, inner, 1, before) + convolution(inner, inner, 3, after) + norm_count(inner) * 2
        layers += convolution(inner, c_out, 1, after) + norm_count(c_out) + Count(3 * activation_params(activation))
        return layers + _projection_count(c_in, c_out, stride, after)

    @classmethod
    def kept(cls, c_in: int, width: int, stride: int, before: Size, after: Size, settings: Settings) -> int:
        """Numbers per image kept for the backward pass, without the input, which the layer before keeps."""
        options, activation = settings
        each, inner, c_out = 1 + activation_copies(activation), options.inner(width), cls.expansion * width
        projects = c_in != c_out or stride != 1
        inside = each * inner * (pixels(before) + pixels(after))
        return int(inside + (each + projects) * c_out * pixels(after))


BLOCKS: dict[str, type[ResidualBlock]] = {"basic": BasicBlock, "bottleneck": BottleneckBlock}


class ResNet(StagedNetwork):
    """Stem, stages at strides 1, 2, 2, 2, and a pool-linear head: (B, C, H, W) to logits (B, K)."""

    def __init__(self, stages: Sequence[Stage], stem: str, spec: ArchSpec, num_classes: int, channels: int) -> None:
        super().__init__()
        self.activation = make_activation(spec.activation)
        self.stem = stem_convolution(stem, channels, spec.stem_width)
        self.bn = nn.BatchNorm2d(spec.stem_width)
        self.stem_pool = stem_pool(stem)
        self.stages = staged(stages, spec.stem_width)
        self.pool = GlobalAveragePool()
        self.fc = nn.Linear(stages[-1].channels, num_classes)
        initialise_convolutions(self)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W), normalised. Returns logits (B, K)."""
        features = self.stages(self.stem_pool(self.activation(self.bn(self.stem(x)))))
        logits: Tensor = self.fc(self.pool(features))
        return logits


class BoundedResNet(ResNet, BoundedNetwork):
    """A ResNet with the stem of small images, which does not pool."""

    def lipschitz_bounds(self, norm: Callable[[nn.Module], float]) -> dict[str, float]:
        """Bounds: stem L(stem) L(bn) L(act), each stage the product over its blocks, head L(pool) L(fc)."""
        stem = norm(self.stem) * norm(self.bn) * activation_lipschitz(self.activation)
        return {"stem": stem, **stage_bounds(self.stages, norm), "head": norm(self.pool) * norm(self.fc)}


_OUTSIDE = {"stem": "conv1", "bn": "bn1", "fc": "linear"}


def _pytorch_cifar(key: str) -> str:
    """The ResNet-18 of many CIFAR-10 repositories: `layer1.0.conv1.weight`."""
    module, rest = key.split(".", 1)
    if module == "stages":
        stage, rest = rest.split(".", 1)
        return f"layer{int(stage) + 1}.{rest}"
    return f"{_OUTSIDE.get(module, module)}.{rest}"


def _torchvision(key: str) -> str:
    """Torchvision's names: `layer1.0.downsample.0.weight`."""
    return _pytorch_cifar(key).replace("shortcut", "downsample").replace("linear", "fc")


class ResNetFamily(ResidualFamily):
    """Four stages of basic or bottleneck blocks."""

    strides = (1, 2, 2, 2)
    norm_at_end = False
    options = ResNetOptions
    published_keys = MappingProxyType(
        {"pytorch_cifar": KeyNames(_pytorch_cifar), "torchvision": KeyNames(_torchvision)}
    )

    def plan(self, spec: ArchSpec | None, depths: Sequence[Any], widths: Sequence[Any]) -> list[Stage]:
        """The stages of these depths and widths, which may be arrays."""
        options = ResNetOptions.read(spec.options if spec else ())
        settings = (options, spec.activation if spec else "relu")
        stages = zip(depths, widths, self.strides, strict=True)
        return [Stage(BLOCKS[options.block], depth, width, stride, settings) for depth, width, stride in stages]

    def kept_outside(self, spec: ArchSpec, stem: Size, last: tuple[int, Size]) -> int:
        """What stem and pooling keep; the mean at the end keeps nothing of the last output."""
        copies, (c_last, size) = activation_copies(spec.activation), last
        kept = (1 + copies) * spec.stem_width * pixels(stem)
        if self.stem(spec) == "imagenet":
            kept += spec.stem_width * pixels(halved(stem))  # the first block's input
        return kept - (copies - activation_only(spec.activation)) * c_last * pixels(size)

    def build(self, spec: ArchSpec, num_classes: int, channels: int) -> nn.Module:
        """A freshly initialised ResNet; draws from torch's global random state."""
        kind = BoundedResNet if self.stem(spec) == "cifar" else ResNet
        return kind(self.plan(spec, spec.depths, spec.widths), self.stem(spec), spec, num_classes, channels)


FAMILY = ResNetFamily()
