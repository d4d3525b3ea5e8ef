"""DenseNet with bottleneck layers (Huang et al. 2017), with depth, growth rate and transition per stage.

The stage's width is its growth rate. By default the variant for small images: a 3x3 stem and no pooling before the
stages. Each stage but the first begins with its transition, a 1x1 convolution and average pooling, which rounds up.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from robust_arch.architectures.counting import Count, Size, convolution, cost_terms_of, halved, linear, norm, pixels
from robust_arch.architectures.family import CostTerms, ImageShape, KeyNames, StagedFamily, StagedNetwork
from robust_arch.architectures.layers import (
    GlobalAveragePool,
    activation_copies,
    activation_only,
    activation_params,
    make_activation,
)
from robust_arch.architectures.spec import ArchSpec
from robust_arch.architectures.stems import StemOptions, stem_convolution, stem_count, stem_kept, stem_pool
from robust_arch.errors import invalid, require_integer

STRIDES = (1, 2, 2, 2)


@dataclass(frozen=True)
class DenseNetOptions(StemOptions):
    """Options of the family.

    Attributes:
        stem: cifar, a 3x3 convolution at stride 1, or imagenet, a 7x7 one at stride 2, BN, act and a max-pooling.
        transition_widths: channels after each of the three transitions; null for half of those before it.
        expansion: channels between a layer's two convolutions, as a multiple of its growth rate.
    """

    transition_widths: tuple[int, ...] | None = None
    expansion: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("arch.options.expansion", self.expansion, 1)
        widths: Any = self.transition_widths
        if widths is not None and (not isinstance(widths, tuple) or len(widths) != len(STRIDES) - 1):
            raise invalid("arch.options.transition_widths", widths, f"a list of {len(STRIDES) - 1} integers, or null")
        for width in widths or ():
            require_integer("arch.options.transition_widths", width, 1)

    def transition(self, stage: int, channels: Any) -> Any:
        """Channels after the transition into the stage, which is counted from 0, from those before it."""
        if self.transition_widths is not None:
            return self.transition_widths[stage - 1]
        return channels // 2


class DenseLayer(nn.Module):
    """BN-act-conv1x1-BN-act-conv3x3, concatenated to its input: (B, c_in, H, W) to (B, c_in + growth, H, W)."""

    def __init__(self, c_in: int, growth: int, expansion: int, activation: str) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(c_in)
        self.activation1 = make_activation(activation)
        self.conv1 = nn.Conv2d(c_in, expansion * growth, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(expansion * growth)
        self.activation2 = make_activation(activation)
        self.conv2 = nn.Conv2d(expansion * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, c_in, H, W)."""
        hidden = self.conv1(self.activation1(self.bn1(x)))
        return torch.cat([x, self.conv2(self.activation2(self.bn2(hidden)))], 1)


class Transition(nn.Module):
    """BN-act-conv1x1-pool: (B, c_in, H, W) to (B, c_out, H/2, W/2), sizes rounded up."""

    def __init__(self, c_in: int, c_out: int, activation: str) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(c_in)
        self.activation = make_activation(activation)
        self.conv = nn.Conv2d(c_in, c_out, 1, bias=False)
        self.pool = nn.AvgPool2d(2, ceil_mode=True)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, c_in, H, W)."""
        out: Tensor = self.pool(self.conv(self.activation(self.bn(x))))
        return out


class DenseNet(StagedNetwork):
    """Stem, stages, and a BN-act-pool-linear head: (B, C, H, W) to logits (B, K)."""

    def __init__(self, spec: ArchSpec, num_classes: int, channels: int) -> None:
        super().__init__()
        chosen, act = DenseNetOptions.read(spec.options), spec.activation
        self.stem = stem_convolution(chosen.stem, channels, spec.stem_width)
        self.stem_norm = nn.Sequential()
        if chosen.stem == "imagenet":
            self.stem_norm.append(nn.BatchNorm2d(spec.stem_width))
        self.stem_activation = make_activation(act) if chosen.stem == "imagenet" else nn.Identity()
        self.stem_pool = stem_pool(chosen.stem)
        stages, c_in = [], spec.stem_width
        for stage, (depth, growth) in enumerate(zip(spec.depths, spec.widths, strict=True)):
            layers: list[nn.Module] = []
            if stage > 0:
                c_out = chosen.transition(stage, c_in)
                layers.append(Transition(c_in, c_out, act))
                c_in = c_out
            layers += [DenseLayer(c_in + i * growth, growth, chosen.expansion, act) for i in range(depth)]
            stages.append(nn.Sequential(*layers))
            c_in += depth * growth
        self.stages = nn.Sequential(*stages)
        self.bn = nn.BatchNorm2d(c_in)
        self.activation = make_activation(act)
        self.pool = GlobalAveragePool()
        self.fc = nn.Linear(c_in, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W), normalised. Returns logits (B, K)."""
        entering = self.stem_pool(self.stem_activation(self.stem_norm(self.stem(x))))
        logits: Tensor = self.fc(self.pool(self.activation(self.bn(self.stages(entering)))))
        return logits


def _dense_layers(c_in: Any, growth: Any, depth: Any, size: Size, expansion: int) -> Count:
    """The cost of all layers of a stage, of which layer i, from 0, reads c_in + i * growth channels."""
    read = depth * c_in + growth * (depth * (depth - 1) // 2)  # channels that all layers read together
    inner = expansion * growth
    each = norm(inner) + convolution(inner, growth, 3, size)
    total: Count = norm(read) + convolution(read, inner, 1, size) + each * depth
    return total


_OUTSIDE = {"stem": "conv0", "stem_norm": "norm0", "stem_activation": "relu0", "bn": "norm5"}


def _torchvision(key: str) -> str:
    """Torchvision's names: `features.denseblock1.denselayer1.norm1.weight`."""
    module, rest = key.split(".", 1)
    if module == "fc":
        return f"classifier.{rest}"
    if module != "stages":
        return f"features.{_OUTSIDE[module]}.{rest.removeprefix('0.')}"
    stage, layer, kind, tensor = rest.split(".")
    kind = kind.replace("bn", "norm").replace("activation", "relu")
    if stage != "0" and layer == "0":
        return f"features.transition{stage}.{kind}.{tensor}"
    number = int(layer) + (stage == "0")  # in the other stages the transition is in front
    return f"features.denseblock{int(stage) + 1}.denselayer{number}.{kind}.{tensor}"


def _torchvision_files(key: str) -> str:
    """The names in torchvision's own files, which it changes when it loads them: `...denselayer1.norm.1.weight`."""
    return re.sub(r"(denselayer\d+\.(?:norm|relu|conv))([12])", r"\1.\2", _torchvision(key))


class DenseNetFamily(StagedFamily):
    """Four stages of dense layers; the closed-form cost counts convolutions and the linear layer."""

    strides = STRIDES
    options = DenseNetOptions
    published_keys = MappingProxyType(
        {"torchvision": KeyNames(_torchvision), "torchvision_files": KeyNames(_torchvision_files)}
    )

    def cost_terms(
        self,
        depths: Sequence[Any],
        widths: Sequence[Any],
        stem_width: int,
        num_classes: int,
        image_shape: ImageShape,
    ) -> CostTerms:
        """Parameters and MACs by stage, from the layer shapes; integers or int64 arrays."""
        chosen, activation = self.template_settings()
        act = Count(activation_params(activation))
        outside, size = stem_count(chosen.stem, image_shape[0], stem_width, image_shape[1:])
        if chosen.stem == "imagenet":
            outside += norm(stem_width) + act
        stages, c_in = [], stem_width
        for stage, (depth, growth) in enumerate(zip(depths, widths, strict=True)):
            count = act * (2 * depth)
            if stage > 0:
                c_out = chosen.transition(stage, c_in)
                count += norm(c_in) + act + convolution(c_in, c_out, 1, size)
                c_in, size = c_out, halved(size)
            stages.append(count + _dense_layers(c_in, growth, depth, size, chosen.expansion))
            c_in = c_in + depth * growth
        return cost_terms_of(stages, outside + norm(c_in) + act + linear(c_in, num_classes))

    def kept_activations(self, spec: ArchSpec, image_shape: ImageShape) -> int:
        """Numbers per image kept for the backward pass, from the layers' shapes."""
        chosen, size, c_in = DenseNetOptions.read(spec.options), image_shape[1:], spec.stem_width
        each = 1 + activation_copies(spec.activation)  # a BatchNorm's input, and what the activation after it keeps
        kept = image_shape[0] * pixels(size)
        if chosen.stem == "imagenet":
            kept += each * c_in * pixels(halved(size))
        by_pooling, size = stem_kept(chosen.stem, c_in, size)
        kept += by_pooling
        for stage, (depth, growth) in enumerate(zip(spec.depths, spec.widths, strict=True)):
            if stage > 0:
                c_out = chosen.transition(stage, c_in)
                kept += (each * c_in + c_out) * pixels(size)
                c_in, size = c_out, halved(size)
            read = depth * c_in + growth * (depth * (depth - 1) // 2)
            kept += each * (read + depth * chosen.expansion * growth) * pixels(size)
            c_in += depth * growth
        return int(kept + (1 + activation_only(spec.activation)) * c_in * pixels(size) + c_in)

    def build(self, spec: ArchSpec, num_classes: int, channels: int) -> nn.Module:
        """A freshly initialised DenseNet; draws from torch's global random state."""
        return DenseNet(spec, num_classes, channels)


FAMILY = DenseNetFamily()
