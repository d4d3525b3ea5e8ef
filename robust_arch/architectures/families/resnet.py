"""Post-activation ResNet of basic blocks for small images (He et al. 2016), with widths and depths by stage.

The usual variant for 32x32 images: a 3x3 stem at stride 1, no pooling before the stages, projections with BatchNorm.
"""

import math
from collections.abc import Callable
from functools import partial
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from robust_arch.architectures.family import BoundedNetwork, ImageShape, KeyNames, StagedFamily
from robust_arch.architectures.initialisation import initialise_convolutions
from robust_arch.architectures.layers import GlobalAveragePool, activation_lipschitz, stage_bounds, staged
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
        block = partial(BasicBlock, activation=spec.activation)
        self.stages = staged(spec.depths, spec.widths, STRIDES, spec.stem_width, block)
        self.pool = GlobalAveragePool()
        self.fc = nn.Linear(spec.widths[-1], num_classes)
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
        stem = norm(self.stem) * norm(self.bn) * activation_lipschitz(self.activation)
        return {"stem": stem, **stage_bounds(self.stages, norm), "head": norm(self.pool) * norm(self.fc)}


_OUTSIDE = {"stem": "conv1", "bn": "bn1", "fc": "linear"}


def _pytorch_cifar(key: str) -> str:
    """The ResNet-18 of many CIFAR-10 repositories: `layer1.0.conv1.weight`."""
    module, rest = key.split(".", 1)
    if module == "stages":
        stage, rest = rest.split(".", 1)
        return f"layer{int(stage) + 1}.{rest}"
    return f"{_OUTSIDE[module]}.{rest}"


class ResNetFamily(StagedFamily):
    """Four stages of basic blocks."""

    strides = STRIDES
    norm_at_end = False

    published_keys = MappingProxyType({"pytorch_cifar": KeyNames(_pytorch_cifar)})

    def validate(self, spec: ArchSpec) -> None:
        """As for every `StagedFamily`; there is no dropout."""
        super().validate(spec)
        if spec.dropout:
            raise invalid("arch.dropout", spec.dropout, "0, as family resnet has no dropout")

    def stage_cost(self, c_in: Any, c: Any, depth: Any, stride: int, pixels: int) -> tuple[Any, Any]:
        """Parameters and MACs of one stage, from the layers' shapes."""
        projects = (c_in != c) | (stride != 1)
        weights = 9 * c_in * c + 9 * c * c + projects * (c_in * c) + (depth - 1) * (18 * c * c)
        batch_norms = depth * (4 * c) + projects * (2 * c)
        return weights + batch_norms, weights * pixels

    def kept_activations(self, spec: ArchSpec, image_shape: ImageShape) -> int:
        """Numbers per image kept for the backward pass, from the layers' shapes."""
        pixels = self.pixels(image_shape)
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
