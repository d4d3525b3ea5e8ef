"""VGG with BatchNorm and one linear layer (Simonyan and Zisserman 2015), with widths and depths per stage.

The variant for small images: stages of 3x3 convolutions, each followed by max-pooling, then the mean of what is left,
which for 32x32 images is one position. Pooling rounds up, so that images of any size pass all five stages.
"""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from robust_arch.architectures.counting import Count, convolution, cost_terms_of, halved, linear, norm, pixels
from robust_arch.architectures.family import CostTerms, ImageShape, KeyNames, StagedFamily, StagedNetwork
from robust_arch.architectures.initialisation import initialise_convolutions
from robust_arch.architectures.layers import GlobalAveragePool, activation_copies, activation_params, make_activation
from robust_arch.architectures.spec import ArchSpec
from robust_arch.errors import invalid


class ConvLayer(nn.Module):
    """conv3x3 with bias, BN, act: (B, c_in, H, W) to (B, c_out, H, W)."""

    def __init__(self, c_in: int, c_out: int, activation: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.bn = nn.BatchNorm2d(c_out)
        self.activation = make_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, c_in, H, W)."""
        out: Tensor = self.activation(self.bn(self.conv(x)))
        return out


class VGG(StagedNetwork):
    """Five stages, mean and linear layer: (B, C, H, W) to logits (B, K)."""

    def __init__(self, spec: ArchSpec, num_classes: int, channels: int) -> None:
        super().__init__()
        stages, c_in = [], channels
        for depth, width in zip(spec.depths, spec.widths, strict=True):
            layers = [ConvLayer(c_in, width, spec.activation)]
            layers += [ConvLayer(width, width, spec.activation) for _ in range(depth - 1)]
            stages.append(nn.Sequential(*layers, nn.MaxPool2d(2, ceil_mode=True)))
            c_in = width
        self.stages = nn.Sequential(*stages)
        self.pool = GlobalAveragePool()
        self.fc = nn.Linear(c_in, num_classes)
        initialise_convolutions(self)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W), normalised. Returns logits (B, K)."""
        logits: Tensor = self.fc(self.pool(self.stages(x)))
        return logits


_LAYERS = ("conv", "bn", "activation")


def _features(key: str, spec: ArchSpec) -> str:
    """The names of pytorch-cifar and torchvision: `features.0.weight`, with one linear layer `classifier`."""
    module, rest = key.split(".", 1)
    if module == "fc":
        return f"classifier.{rest}"
    stage, layer, kind, tensor = rest.split(".")
    # three modules per layer, and a pooling after each stage
    position = 3 * (sum(spec.depths[: int(stage)]) + int(layer)) + int(stage) + _LAYERS.index(kind)
    return f"features.{position}.{tensor}"


class VGGFamily(StagedFamily):
    """Five stages of 3x3 convolutions; there is no stem and no dropout."""

    strides = (2, 2, 2, 2, 2)
    published_keys = MappingProxyType(
        {"pytorch_cifar": KeyNames(_features, reads_spec=True, stem="stages.0.0.conv.weight")}
    )

    def validate(self, spec: ArchSpec) -> None:
        """As for every `StagedFamily`; there is no stem."""
        super().validate(spec)
        if spec.stem_width != 16:
            raise invalid("arch.stem_width", spec.stem_width, "16, the default, as family vgg has no stem")

    def cost_terms(
        self,
        depths: Sequence[Any],
        widths: Sequence[Any],
        stem_width: int,  # noqa: ARG002
        num_classes: int,
        image_shape: ImageShape,
    ) -> CostTerms:
        """Parameters and MACs by stage, from the layer shapes; integers or int64 arrays."""
        act = Count(activation_params(self.template_settings()[1]))
        c_in: Any = image_shape[0]
        size, stages = image_shape[1:], []
        for depth, width in zip(depths, widths, strict=True):
            rest = convolution(width, width, 3, size, bias=True) * (depth - 1)
            stages.append(convolution(c_in, width, 3, size, bias=True) + rest + (norm(width) + act) * depth)
            c_in, size = width, halved(size)
        return cost_terms_of(stages, linear(c_in, num_classes))

    def kept_activations(self, spec: ArchSpec, image_shape: ImageShape) -> int:
        """Numbers per image kept for the backward pass, from the layers' shapes."""
        copies, size = activation_copies(spec.activation), image_shape[1:]
        kept = image_shape[0] * pixels(size)
        for depth, width in zip(spec.depths, spec.widths, strict=True):
            pooled = halved(size)
            # each layer's BatchNorm and activation; the place of each maximum, an integer of 64 bits, and the maxima
            kept += width * (depth * (1 + copies) * pixels(size) + 3 * pixels(pooled))
            size = pooled
        return kept - spec.widths[-1] * pixels(size) + spec.widths[-1]  # of the last maxima only their mean

    def build(self, spec: ArchSpec, num_classes: int, channels: int) -> nn.Module:
        """A freshly initialised VGG; draws from torch's global random state."""
        return VGG(spec, num_classes, channels)


FAMILY = VGGFamily()
