"""ConvNeXt (Liu et al. 2022) of timm's blocks, with the convolutional stem of robust models (Singh et al. 2023).

Needs the extra `timm`. The published networks have activation gelu.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from robust_arch.architectures.counting import Count, Size, convolution, cost_terms_of, linear, norm, pixels, strided
from robust_arch.architectures.family import CostTerms, ImageShape, KeyNames, StagedFamily, StagedNetwork
from robust_arch.architectures.layers import GlobalAveragePool, activation_copies, activation_params, make_activation
from robust_arch.architectures.options import Options, require_choice
from robust_arch.architectures.spec import ArchSpec
from robust_arch.errors import InputError, invalid

REQUIRED = ("timm",)
"""Packages that `build` needs."""
STEMS = {"cifar": (1, 1), "conv": (2, 2), "conv3": (2, 2, 1), "patch": (4,)}
"""Strides of each stem's convolutions."""
_EPS = 1e-6  # of LayerNorm


@dataclass(frozen=True)
class ConvNeXtOptions(Options):
    """Options of the family.

    Attributes:
        stem: conv, two 3x3 convolutions at stride 2 with LayerNorm and activation, the first to `arch.stem_width`
            channels; conv3, with one more of 1.5 times as many between them; cifar, as conv at stride 1; patch, one 4x4
            convolution at stride 4, without activation.
    """

    stem: str = "cifar"

    def __post_init__(self) -> None:
        require_choice("stem", self.stem, STEMS)

    def stem_widths(self, stem_width: Any, width: Any) -> tuple[Any, ...]:
        """Channels after each convolution of the stem."""
        between = {"conv3": (stem_width, stem_width * 3 // 2), "patch": ()}
        return (*between.get(self.stem, (stem_width,)), width)


class _Activation(nn.Module):
    """An activation as timm's blocks take it."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.function = make_activation(name)

    def forward(self, x: Tensor) -> Tensor:
        """x: any shape."""
        return self.function(x)


def _timm() -> Any:
    """The modules of timm that hold its layers and its ConvNeXt."""
    try:
        import timm.layers
        import timm.models.convnext
    except ImportError:
        raise InputError(
            "arch.family = 'convnext': needs the package timm: install the extra `timm`, like "
            "pip install 'robust-arch[timm]'"
        ) from None
    return timm


class ConvNeXt(StagedNetwork):
    """Stem, stages of timm's blocks, and a pool-LayerNorm-linear head: (B, C, H, W) to logits (B, K)."""

    def __init__(self, spec: ArchSpec, num_classes: int, channels: int) -> None:
        super().__init__()
        timm, chosen = _timm(), ConvNeXtOptions.read(spec.options)
        layers: list[nn.Module] = []
        c_in = channels
        widths = chosen.stem_widths(spec.stem_width, spec.widths[0])
        for c_out, stride in zip(widths, STEMS[chosen.stem], strict=True):
            kernel, padding = (4, 0) if chosen.stem == "patch" else (3, 1)
            layers += [nn.Conv2d(c_in, c_out, kernel, stride, padding), timm.layers.LayerNorm2d(c_out, eps=_EPS)]
            if chosen.stem != "patch":
                layers.append(_Activation(spec.activation))
            c_in = c_out
        self.stem = nn.Sequential(*layers)
        stages = []
        for i, (depth, width) in enumerate(zip(spec.depths, spec.widths, strict=True)):
            stage = timm.models.convnext.ConvNeXtStage(
                c_in,
                width,
                stride=1 if i == 0 else 2,
                depth=depth,
                ls_init_value=1e-6,
                act_layer=lambda: _Activation(spec.activation),
                norm_layer=timm.layers.LayerNorm2d,
                norm_layer_cl=timm.layers.LayerNorm,
            )
            stages.append(stage)
            c_in = width
        self.stages = nn.Sequential(*stages)
        self.pool = GlobalAveragePool()
        self.norm = nn.LayerNorm(c_in, eps=_EPS)
        self.fc = nn.Linear(c_in, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W), normalised. Returns logits (B, K)."""
        logits: Tensor = self.fc(self.norm(self.pool(self.stages(self.stem(x)))))
        return logits


def _stem_count(
    chosen: ConvNeXtOptions, widths: Sequence[Any], channels: int, size: Size, act: Count
) -> tuple[Count, Size]:
    """The cost of the stem on images of this size, and the size after it."""
    if chosen.stem == "patch":
        size = size[0] // 4, size[1] // 4
        return convolution(channels, widths[0], 4, size, bias=True) + norm(widths[0]), size
    count, c_in = Count(), channels
    for c_out, stride in zip(widths, STEMS[chosen.stem], strict=True):
        size = strided(size, stride)
        count += convolution(c_in, c_out, 3, size, bias=True) + norm(c_out) + act
        c_in = c_out
    return count, size


def _timm_names(key: str) -> str:
    """The names of timm's ConvNeXt, whose blocks these are."""
    module, _ = key.split(".", 1)
    return f"head.{key}" if module in ("norm", "fc") else key


def _singh(key: str) -> str:
    """The names of Singh et al. 2023: timm's, with the stem inside a block of its own."""
    return f"stem.{key}" if key.startswith("stem.") else _timm_names(key)


def _kept_by_norm(channels: int, positions: int) -> int:
    """Kept by a LayerNorm at so many positions: its input, and mean and standard deviation of each position."""
    return (channels + 2) * positions


class ConvNeXtFamily(StagedFamily):
    """Four stages of depthwise 7x7 convolutions and two linear layers per position."""

    strides = (1, 2, 2, 2)
    options = ConvNeXtOptions
    published_keys = MappingProxyType(
        {
            "timm": KeyNames(_timm_names, stem="stem.0.weight", options={"stem": ("patch",)}),
            "singh2023": KeyNames(_singh, stem="stem.0.weight", options={"stem": ("conv", "conv3")}),
        }
    )

    def validate(self, spec: ArchSpec) -> None:
        """As for every `StagedFamily`; stem patch has no width."""
        super().validate(spec)
        if ConvNeXtOptions.read(spec.options).stem == "patch" and spec.stem_width != 16:
            raise invalid("arch.stem_width", spec.stem_width, "16, the default, as stem patch does not read it")

    def check_image(self, spec: ArchSpec, image_shape: ImageShape) -> None:
        """The stages' strides round down, so that small images vanish before the last stage."""
        stem = ConvNeXtOptions.read(spec.options).stem
        least = {"cifar": 8, "patch": 32}.get(stem, 29)
        if min(image_shape[1:]) < least:
            raise invalid(
                "image_shape", image_shape, f"at least {least} pixels per side for stem {stem} of family convnext"
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
        stem_widths = chosen.stem_widths(stem_width, widths[0])
        outside, size = _stem_count(chosen, stem_widths, image_shape[0], image_shape[1:], act)
        stages, c_in = [], widths[0]
        for i, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            count = Count()
            if i > 0:
                size = size[0] // 2, size[1] // 2
                count = norm(c_in) + convolution(c_in, width, 2, size, bias=True)
            block = convolution(width, width, 7, size, groups=width, bias=True) + norm(width) + act
            block += convolution(width, 4 * width, 1, size, bias=True) + convolution(
                4 * width, width, 1, size, bias=True
            )
            block += Count(width)  # the factor of each channel before the sum
            stages.append(count + block * depth)
            c_in = width
        return cost_terms_of(stages, outside + norm(c_in) + linear(c_in, num_classes))

    def kept_activations(self, spec: ArchSpec, image_shape: ImageShape) -> int:
        """Numbers per image kept for the backward pass, from the layers' shapes."""
        chosen, copies = ConvNeXtOptions.read(spec.options), activation_copies(spec.activation)
        size = image_shape[1:]
        kept, after_norm = image_shape[0] * pixels(size), 1 if chosen.stem == "patch" else copies
        for width, stride in zip(chosen.stem_widths(spec.stem_width, spec.widths[0]), STEMS[chosen.stem], strict=True):
            size = (size[0] // 4, size[1] // 4) if stride == 4 else strided(size, stride)
            kept += _kept_by_norm(width, pixels(size)) + after_norm * width * pixels(size)
        c_in = spec.widths[0]
        for i, (depth, width) in enumerate(zip(spec.depths, spec.widths, strict=True)):
            if i > 0:
                kept += _kept_by_norm(c_in, pixels(size)) + c_in * pixels(size)
                size, c_in = (size[0] // 2, size[1] // 2), width
                kept += width * pixels(size)
            # LayerNorm and its output, the activation between the linear layers, the product with a factor per channel
            kept += depth * (_kept_by_norm(width, pixels(size)) + (2 + 4 * copies) * width * pixels(size))
            kept += (depth - 1) * width * pixels(size)  # the input of each block but the first
        return kept + _kept_by_norm(c_in, 1) + c_in

    def build(self, spec: ArchSpec, num_classes: int, channels: int) -> nn.Module:
        """A freshly initialised ConvNeXt; draws from torch's global random state."""
        return ConvNeXt(spec, num_classes, channels)


FAMILY = ConvNeXtFamily()
