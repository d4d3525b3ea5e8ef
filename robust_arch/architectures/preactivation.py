"""Pre-activation residual networks: blocks and their cost, the network around them, and what their families share."""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from robust_arch.architectures.counting import Count, Size, convolution, linear, norm, pixels, rounded, same_padded
from robust_arch.architectures.family import BoundedNetwork, StagedNetwork
from robust_arch.architectures.initialisation import initialise_convolutions
from robust_arch.architectures.layers import (
    GlobalAveragePool,
    SamePadding,
    SqueezeExcitation,
    activation_copies,
    activation_lipschitz,
    activation_only,
    activation_params,
    make_activation,
    stage_bounds,
)
from robust_arch.architectures.residual import ResidualBlock, ResidualFamily, Stage, staged
from robust_arch.architectures.spec import ArchSpec
from robust_arch.architectures.stems import stem_convolution, stem_pool


@dataclass(frozen=True)
class BlockSettings:
    """What the blocks of one stage have in common besides their widths.

    Attributes:
        activation: one of ACTIVATIONS.
        dropout: probability before the last convolution.
        se_ratio: channels of the squeeze-excitation at the end of the branch, as a part of the block's output; 0 for
            none.
        raw_shortcut: where the width does not change but the stride is 2, the shortcut starts from raw x.
        same_padding: whether 3x3 convolutions at stride 2 are padded by `SamePadding`, or by one on each side.
    """

    activation: str = "relu"
    dropout: float = 0.0
    se_ratio: float = 0.0
    raw_shortcut: bool = False
    same_padding: bool = False

    def pads_same(self, stride: int) -> bool:
        """Whether a 3x3 convolution of this stride is behind a `SamePadding`."""
        return self.same_padding and stride == 2

    def shortcut_is_activated(self, c_in: Any, c_out: Any, stride: int) -> bool:
        """Whether the shortcut is a projection of act(BN(x))."""
        return bool(c_in != c_out or (stride != 1 and not self.raw_shortcut))


class _PreActBlock(ResidualBlock):
    """What basic and bottleneck blocks share: act(BN(x)), the shortcut, and squeeze-excitation after the branch."""

    def __init__(self, c_in: int, width: int, stride: int, settings: BlockSettings) -> None:
        super().__init__(c_in, width, stride, settings)
        self.activation1 = make_activation(settings.activation)
        self.bn1 = nn.BatchNorm2d(c_in)

    def add_shortcut(self, c_in: int, c_out: int, stride: int, settings: BlockSettings) -> None:
        """Add shortcut and squeeze-excitation; after the branch, as the order decides which weights a seed draws."""
        projects = c_in != c_out or stride != 1
        self.shortcut_is_activated = settings.shortcut_is_activated(c_in, c_out, stride)
        self.shortcut = nn.Conv2d(c_in, c_out, 1, stride, bias=False) if projects else nn.Identity()
        has_se = settings.se_ratio > 0
        self.se = SqueezeExcitation(c_out, rounded(settings.se_ratio * c_out)) if has_se else nn.Sequential()

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, c_in, H, W)."""
        activated = self.activation1(self.bn1(x))
        shortcut = self.shortcut(activated if self.shortcut_is_activated else x)
        out: Tensor = self.se(self.branch(activated)) + shortcut
        return out

    @abstractmethod
    def branch(self, activated: Tensor) -> Tensor:
        """What is added to the shortcut, from act(BN(x)), before squeeze-excitation."""

    @abstractmethod
    def branch_bound(self, norm_of: Callable[[nn.Module], float]) -> float:
        """Upper bound of the branch's l2 Lipschitz constant from act(BN(x))."""

    def lipschitz_bound(self, norm_of: Callable[[nn.Module], float]) -> float:
        """Upper bound of the l2 Lipschitz constant in evaluation mode, L(.) being the layers' operator norms.

        With a = L(act), entering = L(bn1) a and branch, for a basic block, L(conv1) L(bn2) a L(conv2): entering
        (L(shortcut) + branch) where shortcut and branch share act(bn1(x)), else L(shortcut) + entering branch, with
        L(shortcut) = 1 if it is the identity. norm_of: the l2 operator norm of a layer.
        """
        entering = norm_of(self.bn1) * activation_lipschitz(self.activation1)
        branch, shortcut = self.branch_bound(norm_of), norm_of(self.shortcut)
        return entering * (shortcut + branch) if self.shortcut_is_activated else shortcut + entering * branch


def _common_count(c_in: Any, c_out: Any, stride: int, after: Size, settings: BlockSettings) -> Count:
    """The first BatchNorm, the projection and squeeze-excitation."""
    count: Count = norm(c_in) + convolution(c_in, c_out, 1, after) * ((c_in != c_out) | (stride != 1))
    if settings.se_ratio:
        squeezed = rounded(settings.se_ratio * c_out)
        count += linear(c_out, squeezed) + linear(squeezed, c_out)
    return count


def _strided_convolution(c_in: int, width: int, stride: int, settings: BlockSettings) -> tuple[nn.Module, nn.Conv2d]:
    """A 3x3 convolution, and what pads its input."""
    same = settings.pads_same(stride)
    convolution = nn.Conv2d(c_in, width, 3, stride, padding=0 if same else 1, bias=False)
    return SamePadding() if same else nn.Identity(), convolution


def _kept_before_stride(
    channels: int, stride: int, before: Size, settings: BlockSettings, *, is_read_twice: bool = False
) -> int:
    """Kept by BN, act, padding and a strided 3x3 convolution. is_read_twice: whether another layer reads act(BN(x))."""
    copies = activation_copies(settings.activation)
    if not settings.pads_same(stride):
        return (1 + copies) * channels * pixels(before)
    alone = copies if is_read_twice else activation_only(settings.activation)
    return channels * ((1 + alone) * pixels(before) + pixels(same_padded(before)))


def _kept_at_end(c_in: int, c_out: int, after: Size, settings: BlockSettings) -> int:
    """Kept by BN, act and dropout before the last convolution of a branch from `c_in`, and by squeeze-excitation."""
    copies = activation_copies(settings.activation)
    # with dropout its mask, and what the convolution then keeps
    kept = (2 + max(copies, 2) if settings.dropout else 1 + copies) * c_in * pixels(after)
    if settings.se_ratio:
        kept += c_out * pixels(after) + 2 * c_out + int(rounded(settings.se_ratio * c_out))
    return kept


class BasicBlock(_PreActBlock):
    """BN-act-conv3x3-BN-act-[dropout]-conv3x3-[SE] plus shortcut."""

    expansion: ClassVar[int] = 1

    def __init__(self, c_in: int, width: int, stride: int, settings: BlockSettings) -> None:
        super().__init__(c_in, width, stride, settings)
        self.padding, self.conv1 = _strided_convolution(c_in, width, stride, settings)
        self.activation2 = make_activation(settings.activation)
        self.bn2 = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(settings.dropout)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.add_shortcut(c_in, width, stride, settings)

    def branch(self, activated: Tensor) -> Tensor:
        """What is added to the shortcut, from act(BN(x))."""
        hidden = self.activation2(self.bn2(self.conv1(self.padding(activated))))
        out: Tensor = self.conv2(self.dropout(hidden))
        return out

    def branch_bound(self, norm_of: Callable[[nn.Module], float]) -> float:
        """L(conv1) L(bn2) L(act) L(conv2)."""
        slope = activation_lipschitz(self.activation2)
        return norm_of(self.conv1) * norm_of(self.bn2) * slope * norm_of(self.conv2)

    @classmethod
    def count(cls, c_in: Any, width: Any, stride: int, before: Size, after: Size, settings: BlockSettings) -> Count:  # noqa: ARG003
        """Its cost on feature maps of these sizes before and after the stride."""
        layers = convolution(c_in, width, 3, after) + norm(width) + convolution(width, width, 3, after)
        layers += Count(2 * activation_params(settings.activation))
        return _common_count(c_in, width, stride, after, settings) + layers

    @classmethod
    def kept(cls, c_in: int, width: int, stride: int, before: Size, after: Size, settings: BlockSettings) -> int:
        """Numbers per image kept for the backward pass."""
        is_read_twice = settings.shortcut_is_activated(c_in, width, stride)
        entering = _kept_before_stride(c_in, stride, before, settings, is_read_twice=is_read_twice)
        return entering + _kept_at_end(width, width, after, settings)


class BottleneckBlock(_PreActBlock):
    """BN-act-conv1x1-BN-act-conv3x3-BN-act-[dropout]-conv1x1-[SE] plus shortcut.

    Its output has four times `width` channels.
    """

    expansion: ClassVar[int] = 4

    def __init__(self, c_in: int, width: int, stride: int, settings: BlockSettings) -> None:
        super().__init__(c_in, width, stride, settings)
        self.conv1 = nn.Conv2d(c_in, width, 1, bias=False)
        self.activation2 = make_activation(settings.activation)
        self.bn2 = nn.BatchNorm2d(width)
        self.padding, self.conv2 = _strided_convolution(width, width, stride, settings)
        self.activation3 = make_activation(settings.activation)
        self.bn3 = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(settings.dropout)
        self.conv3 = nn.Conv2d(width, self.expansion * width, 1, bias=False)
        self.add_shortcut(c_in, self.expansion * width, stride, settings)

    def branch(self, activated: Tensor) -> Tensor:
        """What is added to the shortcut, from act(BN(x))."""
        hidden = self.activation2(self.bn2(self.conv1(activated)))
        hidden = self.activation3(self.bn3(self.conv2(self.padding(hidden))))
        out: Tensor = self.conv3(self.dropout(hidden))
        return out

    def branch_bound(self, norm_of: Callable[[nn.Module], float]) -> float:
        """L(conv1) L(bn2) L(act) L(conv2) L(bn3) L(act) L(conv3)."""
        slopes = activation_lipschitz(self.activation2) * activation_lipschitz(self.activation3)
        layers = (self.conv1, self.bn2, self.conv2, self.bn3, self.conv3)
        return slopes * math.prod(map(norm_of, layers))

    @classmethod
    def count(cls, c_in: Any, width: Any, stride: int, before: Size, after: Size, settings: BlockSettings) -> Count:
        """Its cost on feature maps of these sizes before and after the stride."""
        c_out = cls.expansion * width
        layers = convolution(c_in, width, 1, before) + norm(width) + convolution(width, width, 3, after)
        layers += norm(width) + convolution(width, c_out, 1, after)
        layers += Count(3 * activation_params(settings.activation))
        return _common_count(c_in, c_out, stride, after, settings) + layers

    @classmethod
    def kept(cls, c_in: int, width: int, stride: int, before: Size, after: Size, settings: BlockSettings) -> int:
        """Numbers per image kept for the backward pass."""
        entering = (1 + activation_copies(settings.activation)) * c_in * pixels(before)
        inside = _kept_before_stride(width, stride, before, settings)
        return entering + inside + _kept_at_end(width, cls.expansion * width, after, settings)


BLOCKS: dict[str, type[ResidualBlock]] = {"basic": BasicBlock, "bottleneck": BottleneckBlock}


class PreActNetwork(StagedNetwork):
    """Stem, stages, and a BN-act-pool-linear head: (B, C, H, W) to logits (B, K)."""

    def __init__(self, stages: Sequence[Stage], stem: str, spec: ArchSpec, num_classes: int, channels: int) -> None:
        super().__init__()
        c_out = stages[-1].channels
        self.activation = make_activation(spec.activation)
        self.stem = stem_convolution(stem, channels, spec.stem_width)
        self.stem_pool = stem_pool(stem)
        self.stages = staged(stages, spec.stem_width)
        self.bn = nn.BatchNorm2d(c_out)
        self.pool = GlobalAveragePool()
        self.fc = nn.Linear(c_out, num_classes)
        initialise_convolutions(self)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W), normalised. Returns logits (B, K)."""
        features = self.activation(self.bn(self.stages(self.stem_pool(self.stem(x)))))
        logits: Tensor = self.fc(self.pool(features))
        return logits


class BoundedPreActNetwork(PreActNetwork, BoundedNetwork):
    """Basic or bottleneck blocks without squeeze-excitation, after a stem that does not pool."""

    def lipschitz_bounds(self, norm: Callable[[nn.Module], float]) -> dict[str, float]:
        """Bounds: stem L(stem), each stage the product over its blocks, head L(bn) L(act) L(pool) L(fc)."""
        head = norm(self.bn) * activation_lipschitz(self.activation) * norm(self.pool) * norm(self.fc)
        return {"stem": norm(self.stem), **stage_bounds(self.stages, norm), "head": head}


class PreActFamily(ResidualFamily):
    """A family of pre-activation networks, which differ in their stages."""

    norm_at_end = True

    @abstractmethod
    def is_bounded(self, spec: ArchSpec) -> bool:
        """Whether the network has Lipschitz bounds in closed form."""

    def kept_outside(self, spec: ArchSpec, stem: Size, last: tuple[int, Size]) -> int:
        """The input of the stem's pooling; BatchNorm's input and what the activation keeps at the end."""
        c_last, size = last
        pooled = spec.stem_width * pixels(stem) if self.stem(spec) == "imagenet" else 0
        return pooled + (1 + activation_only(spec.activation)) * c_last * pixels(size)

    def build(self, spec: ArchSpec, num_classes: int, channels: int) -> nn.Module:
        """A freshly initialised network; draws from torch's global random state."""
        kind = BoundedPreActNetwork if self.is_bounded(spec) else PreActNetwork
        return kind(self.plan(spec, spec.depths, spec.widths), self.stem(spec), spec, num_classes, channels)
