"""Post-activation ResNet of basic blocks for small images (He et al. 2016), with widths and depths by stage.

The usual variant for 32x32 images: a 3x3 stem at stride 1, no pooling before the stages, projections with BatchNorm.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, cast

from torch import Tensor, nn
from torch.nn import functional as F

from robust_arch.architectures.family import (
    BoundedNetwork,
    CostTerms,
    Family,
    ImageShape,
    KeyNames,
    feature_pixels,
    staged_terms,
)
from robust_arch.architectures.initialisation import initialise_convolutions
from robust_arch.architectures.layers import GlobalAveragePool, activation_lipschitz
from robust_arch.architectures.spec import ArchSpec
from robust_arch.errors import invalid

STRIDES = (1, 2, 2, 2)


class BasicBlock(nn.Module):
    """conv3x3-BN-act-conv3x3-BN plus shortcut, then act: (B, c_in, H, W) to (B, c_out, H/stride, W/stride)."""

    def __init__(self, c_in: int, c_out: int, stride: int, activation: str) -> None:
        super().__init__()
        self.activation = getattr(F, activation)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.shortcut = nn.Sequential()
        if c_in != c_out or stride != 1:
            self.shortcut = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, c_in, H, W)."""
        hidden = self.activation(self.bn1(self.conv1(x)))
        out: Tensor = self.activation(self.bn2(self.conv2(hidden)) + self.shortcut(x))
        return out

    def lipschitz_bound(self, norm: Callable[[nn.Module], float]) -> float:
        """Upper bound of the l2 Lipschitz constant in evaluation mode, L(.) being the layers' operator norms.

        L(act) (L(shortcut) + L(conv1) L(bn1) L(act) L(conv2) L(bn2)), with L(shortcut) = 1 if it is the identity, else
        the product of its two layers. norm: the l2 operator norm of a layer.
        """
        slope = activation_lipschitz(self.activation)
        branch = norm(self.conv1) * norm(self.bn1) * slope * norm(self.conv2) * norm(self.bn2)
        shortcut = math.prod(norm(layer) for layer in self.shortcut)
        return slope * (shortcut + branch)


class ResNet(BoundedNetwork):
    """Stem, stages at strides 1, 2, 2, 2, and a pool-linear head: (B, C, H, W) to logits (B, K)."""

    def __init__(self, spec: ArchSpec, num_classes: int, channels: int) -> None:
        super().__init__()
        self.activation = getattr(F, spec.activation)
        self.stem = nn.Conv2d(channels, spec.stem_width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(spec.stem_width)
        stages = []
        c_in = spec.stem_width
        for depth, width, stride in zip(spec.depths, spec.widths, STRIDES, strict=True):
            blocks = [BasicBlock(c_in, width, stride, spec.activation)]
            blocks += [BasicBlock(width, width, 1, spec.activation) for _ in range(depth - 1)]
            stages.append(nn.Sequential(*blocks))
            c_in = width
        self.stages = nn.Sequential(*stages)
        self.pool = GlobalAveragePool()
        self.fc = nn.Linear(c_in, num_classes)
        initialise_convolutions(self)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W), normalised. Returns logits (B, K)."""
        features = self.stages(self.activation(self.bn(self.stem(x))))
        logits: Tensor = self.fc(self.pool(features))
        return logits

    def lipschitz_bounds(self, norm: Callable[[nn.Module], float]) -> dict[str, float]:
        """Upper bounds of the l2 Lipschitz constants, in evaluation mode, of stem, each stage and head alone.

        The stem's is L(stem) L(bn) L(act), a stage's the product over its blocks, the head's L(pool) L(fc). norm: the
        l2 operator norm of a layer.
        """
        bounds = {"stem": norm(self.stem) * norm(self.bn) * activation_lipschitz(self.activation)}
        for i, stage in enumerate(self.stages, start=1):
            blocks = cast(Iterable[BasicBlock], stage)
            bounds[f"stage {i}"] = math.prod(block.lipschitz_bound(norm) for block in blocks)
        bounds["head"] = norm(self.pool) * norm(self.fc)
        return bounds


def _stage(c_in: Any, c: Any, depth: Any, stride: int, pixels: int) -> tuple[Any, Any]:
    """Parameters and MACs of one stage; `pixels` counts positions of the feature map after its stride."""
    projects = (c_in != c) | (stride != 1)
    weights = 9 * c_in * c + 9 * c * c + projects * (c_in * c) + (depth - 1) * (18 * c * c)
    batch_norms = depth * (4 * c) + projects * (2 * c)
    return weights + batch_norms, weights * pixels


_OUTSIDE = {"stem": "conv1", "bn": "bn1", "fc": "linear"}


def _pytorch_cifar(key: str) -> str:
    """The ResNet-18 of many CIFAR-10 repositories: `layer1.0.conv1.weight`."""
    module, rest = key.split(".", 1)
    if module == "stages":
        stage, rest = rest.split(".", 1)
        return f"layer{int(stage) + 1}.{rest}"
    return f"{_OUTSIDE[module]}.{rest}"


class ResNetFamily(Family):
    """Four stages of basic blocks; the closed-form cost counts convolutions and the linear layer."""

    published_keys = MappingProxyType({"pytorch_cifar": KeyNames(_pytorch_cifar)})

    def validate(self, spec: ArchSpec) -> None:
        """Any depths and widths of at least 1 are legal, for exactly four stages; there is no dropout."""
        if len(spec.depths) != len(STRIDES):
            raise invalid("arch.depths", spec.depths, f"family resnet has {len(STRIDES)} stages")
        if spec.dropout:
            raise invalid("arch.dropout", spec.dropout, "0, as family resnet has no dropout")

    def cost_terms(
        self,
        depths: Sequence[Any],
        widths: Sequence[Any],
        stem_width: int,
        num_classes: int,
        image_shape: ImageShape,
    ) -> CostTerms:
        """Parameters and MACs by stage, from the layer shapes; integers or int64 arrays."""
        terms = staged_terms(_stage, STRIDES, depths, widths, stem_width, num_classes, image_shape)
        # BatchNorm behind the stem
        return replace(terms, outside_params=terms.outside_params + 2 * stem_width)

    def kept_activations(self, spec: ArchSpec, image_shape: ImageShape) -> int:
        """Numbers per image kept for the backward pass, from the layers' shapes."""
        pixels = feature_pixels(image_shape, STRIDES)
        # ReLU keeps its output, which the next convolution keeps anyway; the others keep their input besides
        activated = 1 if spec.activation == "relu" else 2
        kept = image_shape[0] * pixels[0] + (1 + activated) * spec.stem_width * pixels[0]
        c_in = spec.stem_width
        for depth, c, stride, after in zip(spec.depths, spec.widths, STRIDES, pixels[1:], strict=True):
            projects = c_in != c or stride != 1
            # two convolutions' outputs and two activations; the projection's output, which its BatchNorm keeps
            kept += (depth * 2 * (1 + activated) + projects) * c * after
            c_in = c
        if spec.activation != "relu":
            kept -= c_in * pixels[-1]  # the last output: the mean behind it keeps nothing
        return kept + c_in

    def build(self, spec: ArchSpec, num_classes: int, channels: int) -> nn.Module:
        """A freshly initialised ResNet; draws from torch's global random state."""
        return ResNet(spec, num_classes, channels)


FAMILY = ResNetFamily()
