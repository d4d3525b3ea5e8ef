"""What families of residual networks share: the interface of a block, stages of blocks, and their cost."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from robust_arch.architectures.counting import Count, Size, cost_terms_of, halved, linear, norm, pixels, strided
from robust_arch.architectures.family import CostTerms, ImageShape, StagedFamily
from robust_arch.architectures.layers import activation_params
from robust_arch.architectures.spec import ArchSpec
from robust_arch.architectures.stems import StemOptions, stem_count, stem_kept


class ResidualBlock(nn.Module, ABC):
    """A residual block from (B, c_in, H, W) to (B, expansion * width, H / stride, W / stride)."""

    expansion: ClassVar[int]

    def __init__(self, c_in: int, width: int, stride: int, settings: Any) -> None:  # noqa: ARG002
        super().__init__()

    @classmethod
    @abstractmethod
    def count(cls, c_in: Any, width: Any, stride: int, before: Size, after: Size, settings: Any) -> Count:
        """Its cost on feature maps of these sizes before and after the stride."""

    @classmethod
    @abstractmethod
    def kept(cls, c_in: int, width: int, stride: int, before: Size, after: Size, settings: Any) -> int:
        """Numbers per image that it keeps for the backward pass; `ResidualFamily.kept_activations` adds them up."""


@dataclass(frozen=True)
class Stage:
    """One stage: `depth` blocks of one kind, the first of which has the stride."""

    block: type[ResidualBlock]
    depth: Any
    width: Any
    stride: int
    settings: Any

    @property
    def channels(self) -> Any:
        """Channels of the stage's output."""
        return self.block.expansion * self.width

    def build(self, c_in: int) -> nn.Sequential:
        """The blocks, from `c_in` channels."""
        first = self.block(c_in, self.width, self.stride, self.settings)
        rest = (self.block(self.channels, self.width, 1, self.settings) for _ in range(self.depth - 1))
        return nn.Sequential(first, *rest)

    def count(self, c_in: Any, before: Size, after: Size) -> Count:
        """The cost of the blocks, on feature maps of these sizes before and after the stage."""
        first = self.block.count(c_in, self.width, self.stride, before, after, self.settings)
        rest: Count = self.block.count(self.channels, self.width, 1, after, after, self.settings) * (self.depth - 1)
        return first + rest

    def kept(self, c_in: int, before: Size, after: Size) -> int:
        """Numbers per image that the blocks keep for the backward pass."""
        first = self.block.kept(c_in, self.width, self.stride, before, after, self.settings)
        rest = self.block.kept(self.channels, self.width, 1, after, after, self.settings) * (self.depth - 1)
        return int(first + rest)


def staged(stages: Sequence[Stage], c_in: int) -> nn.Sequential:
    """The blocks of all stages, from `c_in` channels."""
    built = []
    for stage in stages:
        built.append(stage.build(c_in))
        c_in = stage.channels
    return nn.Sequential(*built)


class ResidualFamily(StagedFamily):
    """A family of residual networks with a stem, one BatchNorm and activation outside the stages, and a linear head.

    Attributes:
        norm_at_end: whether the BatchNorm outside the stages follows the last one; else it follows the stem.
    """

    norm_at_end: bool
    options: type[StemOptions] = StemOptions

    @abstractmethod
    def plan(self, spec: ArchSpec | None, depths: Sequence[Any], widths: Sequence[Any]) -> list[Stage]:
        """The stages of these depths and widths, which may be arrays, with the settings of `spec`; None: defaults."""

    def stem(self, spec: ArchSpec) -> str:
        """Which of STEMS the network has."""
        return self.options.read(spec.options).stem

    @abstractmethod
    def kept_outside(self, spec: ArchSpec, stem: Size, last: tuple[int, Size]) -> int:
        """Numbers per image kept between image and stages, and between stages and pooled features.

        stem: size after the stem's convolution. last: channels and size after the last stage.
        """

    def kept_activations(self, spec: ArchSpec, image_shape: ImageShape) -> int:
        """Numbers per image kept for the backward pass, from the layers' shapes."""
        channels, *sides = image_shape
        size = sides[0], sides[1]
        stem = self.stem(spec)
        convolved = size if stem == "cifar" else halved(size)
        by_pooling, after = stem_kept(stem, spec.stem_width, size)
        kept = channels * pixels(size) + by_pooling
        c_in = spec.stem_width
        for stage in self.plan(spec, spec.depths, spec.widths):
            before, after = after, strided(after, stage.stride)
            kept += stage.kept(c_in, before, after)
            c_in = stage.channels
        return kept + self.kept_outside(spec, convolved, (c_in, after)) + c_in

    def validate(self, spec: ArchSpec) -> None:
        """As for every `StagedFamily`; the options must fit together."""
        super().validate(spec)
        self.plan(spec, spec.depths, spec.widths)

    def cost_terms(
        self,
        depths: Sequence[Any],
        widths: Sequence[Any],
        stem_width: int,
        num_classes: int,
        image_shape: ImageShape,
    ) -> CostTerms:
        """Parameters of all layers, and MACs of convolutions and linear layers, from the layers' shapes."""
        options, activation = self.template_settings()
        outside, size = stem_count(options.stem, image_shape[0], stem_width, image_shape[1:])
        counts, c_in = [], stem_width
        for stage in self.plan(self.template, depths, widths):
            after = strided(size, stage.stride)
            counts.append(stage.count(c_in, size, after))
            c_in, size = stage.channels, after
        outside += norm(c_in if self.norm_at_end else stem_width) + Count(activation_params(activation))
        return cost_terms_of(counts, outside + linear(c_in, num_classes))
