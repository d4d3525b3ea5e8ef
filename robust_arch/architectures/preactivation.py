"""Pre-activation residual networks: blocks and their cost, the network around them, and what their families share."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from torch import Tensor, nn

from robust_arch.architectures.counting import (
    Count,
    Size,
    convolution,
    cost_terms_of,
    linear,
    norm,
    rounded,
    strided,
)
from robust_arch.architectures.family import BoundedNetwork, CostTerms, Family, ImageShape, StagedNetwork
from robust_arch.architectures.initialisation import initialise_convolutions
from robust_arch.architectures.layers import (
    GlobalAveragePool,
    SqueezeExcitation,
    activation_lipschitz,
    activation_params,
    make_activation,
)
from robust_arch.architectures.options import Options
from robust_arch.architectures.spec import ArchSpec
from robust_arch.architectures.stems import StemOptions, stem_convolution, stem_count, stem_pool
from robust_arch.errors import invalid


@dataclass(frozen=True)
class BlockSettings:
    """What the blocks of one stage have in common beside their widths.

    Attributes:
        activation: one of ACTIVATIONS.
        dropout: probability before the last convolution.
        se_ratio: channels of the squeeze-excitation at the end of the branch, as a part of the block's output; 0 for
            none.
        raw_shortcut: where the width does not change but the stride is 2, the shortcut starts from raw x.
    """

    activation: str = "relu"
    dropout: float = 0.0
    se_ratio: float = 0.0
    raw_shortcut: bool = False


class ResidualBlock(nn.Module, ABC):
    """A residual block from (B, c_in, H, W) to (B, expansion * width, H / stride, W / stride)."""

    expansion: ClassVar[int]

    def __init__(self, c_in: int, width: int, stride: int, settings: Any) -> None:  # noqa: ARG002
        super().__init__()

    @classmethod
    @abstractmethod
    def count(cls, c_in: Any, width: Any, stride: int, before: Size, after: Size, settings: Any) -> Count:
        """Its cost, on feature maps of these sizes before and after the stride."""


class _PreActBlock(ResidualBlock):
    """What basic and bottleneck blocks share: act(BN(x)), the shortcut, and squeeze-excitation behind the branch."""

    def __init__(self, c_in: int, width: int, stride: int, settings: BlockSettings) -> None:
        super().__init__(c_in, width, stride, settings)
        self.activation1 = make_activation(settings.activation)
        self.bn1 = nn.BatchNorm2d(c_in)

    def add_shortcut(self, c_in: int, c_out: int, stride: int, settings: BlockSettings) -> None:
        """Add shortcut and squeeze-excitation; after the branch, as the order decides which weights a seed draws."""
        projects = c_in != c_out or stride != 1
        self.shortcut_is_activated = projects and not (c_in == c_out and settings.raw_shortcut)
        self.shortcut = nn.Conv2d(c_in, c_out, 1, stride, bias=False) if projects else nn.Identity()
        has_se = settings.se_ratio > 0
        self.se = SqueezeExcitation(c_out, rounded(settings.se_ratio * c_out)) if has_se else nn.Identity()

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


class BasicBlock(_PreActBlock):
    """BN-act-conv3x3-BN-act-[dropout]-conv3x3-[SE] plus shortcut."""

    expansion: ClassVar[int] = 1

    def __init__(self, c_in: int, width: int, stride: int, settings: BlockSettings) -> None:
        super().__init__(c_in, width, stride, settings)
        self.conv1 = nn.Conv2d(c_in, width, 3, stride, padding=1, bias=False)
        self.activation2 = make_activation(settings.activation)
        self.bn2 = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(settings.dropout)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.add_shortcut(c_in, width, stride, settings)

    def branch(self, activated: Tensor) -> Tensor:
        """What is added to the shortcut, from act(BN(x))."""
        hidden = self.activation2(self.bn2(self.conv1(activated)))
        out: Tensor = self.conv2(self.dropout(hidden))
        return out

    def branch_bound(self, norm_of: Callable[[nn.Module], float]) -> float:
        """L(conv1) L(bn2) L(act) L(conv2)."""
        slope = activation_lipschitz(self.activation2)
        return norm_of(self.conv1) * norm_of(self.bn2) * slope * norm_of(self.conv2)

    @classmethod
    def count(cls, c_in: Any, width: Any, stride: int, before: Size, after: Size, settings: BlockSettings) -> Count:  # noqa: ARG003
        """Its cost, on feature maps of these sizes before and after the stride."""
        layers = convolution(c_in, width, 3, after) + norm(width) + convolution(width, width, 3, after)
        layers += Count(2 * activation_params(settings.activation))
        return _common_count(c_in, width, stride, after, settings) + layers


class BottleneckBlock(_PreActBlock):
    """BN-act-conv1x1-BN-act-conv3x3-BN-act-[dropout]-conv1x1-[SE] plus shortcut.

    Four times `width` channels leave it.
    """

    expansion: ClassVar[int] = 4

    def __init__(self, c_in: int, width: int, stride: int, settings: BlockSettings) -> None:
        super().__init__(c_in, width, stride, settings)
        self.conv1 = nn.Conv2d(c_in, width, 1, bias=False)
        self.activation2 = make_activation(settings.activation)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.activation3 = make_activation(settings.activation)
        self.bn3 = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(settings.dropout)
        self.conv3 = nn.Conv2d(width, self.expansion * width, 1, bias=False)
        self.add_shortcut(c_in, self.expansion * width, stride, settings)

    def branch(self, activated: Tensor) -> Tensor:
        """What is added to the shortcut, from act(BN(x))."""
        hidden = self.activation2(self.bn2(self.conv1(activated)))
        hidden = self.activation3(self.bn3(self.conv2(hidden)))
        out: Tensor = self.conv3(self.dropout(hidden))
        return out

    def branch_bound(self, norm_of: Callable[[nn.Module], float]) -> float:
        """L(conv1) L(bn2) L(act) L(conv2) L(bn3) L(act) L(conv3)."""
        slopes = activation_lipschitz(self.activation2) * activation_lipschitz(self.activation3)
        layers = (self.conv1, self.bn2, self.conv2, self.bn3, self.conv3)
        return slopes * math.prod(map(norm_of, layers))

    @classmethod
    def count(cls, c_in: Any, width: Any, stride: int, before: Size, after: Size, settings: BlockSettings) -> Count:
        """Its cost, on feature maps of these sizes before and after the stride."""
        c_out = cls.expansion * width
        layers = convolution(c_in, width, 1, before) + norm(width) + convolution(width, width, 3, after)
        layers += norm(width) + convolution(width, c_out, 1, after)
        layers += Count(3 * activation_params(settings.activation))
        return _common_count(c_in, c_out, stride, after, settings) + layers


BLOCKS: dict[str, type[ResidualBlock]] = {"basic": BasicBlock, "bottleneck": BottleneckBlock}


@dataclass(frozen=True)
class Stage:
    """One stage of a pre-activation network: `depth` blocks of one kind, of which the first has the stride."""

    block: type[ResidualBlock]
    depth: Any
    width: Any
    stride: int
    settings: Any

    @property
    def channels(self) -> Any:
        """Channels behind the stage."""
        return self.block.expansion * self.width

    def build(self, c_in: int) -> nn.Sequential:
        """The blocks, behind `c_in` channels."""
        first = self.block(c_in, self.width, self.stride, self.settings)
        rest = (self.block(self.channels, self.width, 1, self.settings) for _ in range(self.depth - 1))
        return nn.Sequential(first, *rest)

    def count(self, c_in: Any, before: Size, after: Size) -> Count:
        """The cost of the blocks, on feature maps of these sizes before and after the stage."""
        first = self.block.count(c_in, self.width, self.stride, before, after, self.settings)
        rest: Count = self.block.count(self.channels, self.width, 1, after, after, self.settings) * (self.depth - 1)
        return first + rest


class PreActNetwork(StagedNetwork):
    """Stem convolution, stages, and a BN-act-pool-linear head: (B, C, H, W) to logits (B, K).

    stem: one of STEMS; a stem for large images pools behind its convolution. activation: of the head.
    """

    def __init__(
        self, stages: Sequence[Stage], stem: str, stem_width: int, activation: str, num_classes: int, channels: int
    ) -> None:
        super().__init__()
        self.activation = make_activation(activation)
        self.stem = stem_convolution(stem, channels, stem_width)
        self.stem_pool = stem_pool(stem)
        built, c_in = [], stem_width
        for stage in stages:
            built.append(stage.build(c_in))
            c_in = stage.channels
        self.stages = nn.Sequential(*built)
        self.bn = nn.BatchNorm2d(c_in)
        self.pool = GlobalAveragePool()
        self.fc = nn.Linear(c_in, num_classes)
        initialise_convolutions(self)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W), normalised. Returns logits (B, K)."""
        features = self.activation(self.bn(self.stages(self.stem_pool(self.stem(x)))))
        logits: Tensor = self.fc(self.pool(features))
        return logits


class BoundedPreActNetwork(PreActNetwork, BoundedNetwork):
    """A pre-activation network of basic or bottleneck blocks without squeeze-excitation, behind a plain stem."""

    def lipschitz_bounds(self, norm: Callable[[nn.Module], float]) -> dict[str, float]:
        """Upper bounds of the l2 Lipschitz constants, in evaluation mode, of stem, each stage and head alone.

        A stage's is the product over its blocks, the head's L(bn) L(act) L(pool) L(fc). norm: the l2 operator norm
        of a layer.
        """
        bounds = {"stem": norm(self.stem)}
        for i, stage in enumerate(self.stages, start=1):
            blocks = cast(Iterable[_PreActBlock], stage)
            bounds[f"stage {i}"] = math.prod(block.lipschitz_bound(norm) for block in blocks)
        bounds["head"] = norm(self.bn) * activation_lipschitz(self.activation) * norm(self.pool) * norm(self.fc)
        return bounds


class PreActFamily(Family):
    """A family of pre-activation networks, which differ in their stages.

    Attributes:
        name: of the family, for errors.
        strides: of the first block of each stage.
    """

    name: ClassVar[str]
    strides: ClassVar[tuple[int, ...]]
    options: type[Options] = StemOptions

    @abstractmethod
    def plan(self, spec: ArchSpec | None, depths: Sequence[Any], widths: Sequence[Any]) -> list[Stage]:
        """The stages of these depths and widths, which may be arrays, with the settings of `spec`; None: defaults."""

    @abstractmethod
    def is_bounded(self, spec: ArchSpec) -> bool:
        """Whether the network has Lipschitz bounds in closed form."""

    def _stem(self, spec: ArchSpec | None) -> str:
        return cast(StemOptions, self.options.read(spec.options if spec else ())).stem

    def validate(self, spec: ArchSpec) -> None:
        """Any depths and widths of at least 1 are legal, for as many stages as the family has."""
        if len(spec.depths) != len(self.strides):
            raise invalid("arch.depths", spec.depths, f"family {self.name} has {len(self.strides)} stages")
        self.plan(spec, spec.depths, spec.widths)

    def cost_terms(
        self,
        depths: Sequence[Any],
        widths: Sequence[Any],
        stem_width: int,
        num_classes: int,
        image_shape: ImageShape,
    ) -> CostTerms:
        """Parameters and MACs by stage, from the layer shapes; integers or int64 arrays."""
        spec = self.template
        outside, size = stem_count(self._stem(spec), image_shape[0], stem_width, image_shape[1:])
        counts, c_in = [], stem_width
        for stage in self.plan(spec, depths, widths):
            after = strided(size, stage.stride)
            counts.append(stage.count(c_in, size, after))
            c_in, size = stage.channels, after
        activation = Count(activation_params(spec.activation if spec else "relu"))
        return cost_terms_of(counts, outside + norm(c_in) + activation + linear(c_in, num_classes))

    def build(self, spec: ArchSpec, num_classes: int, channels: int) -> nn.Module:
        """A freshly initialised network; draws from torch's global random state."""
        kind = BoundedPreActNetwork if self.is_bounded(spec) else PreActNetwork
        stages, stem = self.plan(spec, spec.depths, spec.widths), self._stem(spec)
        return kind(stages, stem, spec.stem_width, spec.activation, num_classes, channels)
