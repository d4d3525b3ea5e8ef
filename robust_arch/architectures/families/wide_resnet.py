"""Pre-activation WideResNet (Zagoruyko and Komodakis 2016) whose stages have widths and depths of their own.

Block and head follow the network of Huang et al., NeurIPS 2021, so that its published weights fit.
"""

import re
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

STRIDES = (1, 2, 2)


class BasicBlock(nn.Module):
    """BN-act-conv3x3-BN-act-[dropout]-conv3x3 plus shortcut: (B, c_in, H, W) to (B, c_out, H/stride, W/stride)."""

    def __init__(self, c_in: int, c_out: int, stride: int, activation: str, dropout: float) -> None:
        super().__init__()
        self.activation = getattr(F, activation)
        self.changes_width = c_in != c_out
        self.bn1 = nn.BatchNorm2d(c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        projects = self.changes_width or stride != 1
        self.shortcut = nn.Conv2d(c_in, c_out, 1, stride, bias=False) if projects else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, c_in, H, W)."""
        activated = self.activation(self.bn1(x))
        # where the width changes the shortcut starts from the activated tensor, else from raw x
        shortcut = self.shortcut(activated if self.changes_width else x)
        hidden = self.activation(self.bn2(self.conv1(activated)))
        out: Tensor = self.conv2(self.dropout(hidden)) + shortcut
        return out

    def lipschitz_bound(self, norm: Callable[[nn.Module], float]) -> float:
        """Upper bound of the l2 Lipschitz constant in evaluation mode, L(.) being the layers' operator norms.

        With a = L(act), entering = L(bn1) a and branch = L(conv1) L(bn2) a L(conv2): entering (L(shortcut) + branch)
        where the width changes, as shortcut and branch share act(bn1(x)); else L(shortcut) + entering branch, with
        L(shortcut) = 1 if it is the identity. norm: the l2 operator norm of a layer.
        """
        slope = activation_lipschitz(self.activation)
        entering = norm(self.bn1) * slope
        branch = norm(self.conv1) * norm(self.bn2) * slope * norm(self.conv2)
        shortcut = norm(self.shortcut)
        return entering * (shortcut + branch) if self.changes_width else shortcut + entering * branch


class WideResNet(BoundedNetwork):
    """Stem, stages at strides 1, 2, 2, and a BN-act-pool-linear head: (B, C, H, W) to logits (B, K)."""

    def __init__(self, spec: ArchSpec, num_classes: int, channels: int) -> None:
        super().__init__()
        self.activation = getattr(F, spec.activation)
        self.stem = nn.Conv2d(channels, spec.stem_width, 3, padding=1, bias=False)
        block = partial(BasicBlock, activation=spec.activation, dropout=spec.dropout)
        self.stages = staged(spec.depths, spec.widths, STRIDES, spec.stem_width, block)
        self.bn = nn.BatchNorm2d(spec.widths[-1])
        self.pool = GlobalAveragePool()
        self.fc = nn.Linear(spec.widths[-1], num_classes)
        initialise_convolutions(self)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W), normalised. Returns logits (B, K)."""
        features = self.activation(self.bn(self.stages(self.stem(x))))
        logits: Tensor = self.fc(self.pool(features))
        return logits

    def lipschitz_bounds(self, norm: Callable[[nn.Module], float]) -> dict[str, float]:
        """Upper bounds of the l2 Lipschitz constants, in evaluation mode, of stem, each stage and head alone.

        A stage's is the product over its blocks, the head's L(bn) L(act) L(pool) L(fc). norm: the l2 operator norm
        of a layer.
        """
        head = norm(self.bn) * activation_lipschitz(self.activation) * norm(self.pool) * norm(self.fc)
        return {"stem": norm(self.stem), **stage_bounds(self.stages, norm), "head": head}


_BLOCK = re.compile(r"stages\.(\d+)\.(\d+)\.(.+)")


def _published(key: str, *, stage: str, first: int, stem: str) -> str:
    """`key` in a layout whose stages are named `stage` with numbers from `first`, and whose stem is named `stem`."""
    if match := _BLOCK.fullmatch(key):
        number, block, tensor = match.groups()
        return f"{stage}{int(number) + first}.layer.{block}.{tensor.replace('shortcut', 'convShortcut')}"
    module, tensor = key.split(".")
    names = {"stem": stem, "bn": "bn1", "fc": "fc"}
    return f"{names[module]}.{tensor}"


class WideResNetFamily(StagedFamily):
    """Three stages of basic blocks."""

    strides = STRIDES
    norm_at_end = True

    # huang2021: also RobustBench's files; trades: also the code of MART and AWP, all of which save a second first
    # stage, sub_block1, that their forward pass leaves out
    published_keys = MappingProxyType(
        {
            "huang2021": KeyNames(partial(_published, stage="blocks.", first=0, stem="stem_conv")),
            "trades": KeyNames(partial(_published, stage="block", first=1, stem="conv1"), unused=("sub_block1.",)),
        }
    )

    def stage_cost(self, c_in: Any, c: Any, depth: Any, stride: int, pixels: int) -> tuple[Any, Any]:
        """Parameters and MACs of one stage, from the layers' shapes."""
        projection = ((c_in != c) | (stride != 1)) * (c_in * c)
        weights = 9 * c_in * c + 9 * c * c + projection + (depth - 1) * 18 * c * c
        batch_norms = (2 * c_in + 2 * c) + (depth - 1) * 4 * c
        return weights + batch_norms, weights * pixels

    def kept_activations(self, spec: ArchSpec, image_shape: ImageShape) -> int:
        """Numbers per image kept for the backward pass, from the layers' shapes."""
        pixels = self.pixels(image_shape)
        # ReLU keeps its output, which the next convolution keeps anyway; the others keep their input besides
        activated = 1 if spec.activation == "relu" else 2
        # inside a block: BatchNorm's input, what the activation keeps; dropout: its mask and what conv2 then keeps
        inner = 4 if spec.dropout else 1 + activated
        kept = image_shape[0] * pixels[0]
        c_in, before = spec.stem_width, pixels[0]
        for depth, c, after in zip(spec.depths, spec.widths, pixels[1:], strict=True):
            entering = c_in * before + (depth - 1) * c * after
            kept += (1 + activated) * entering + inner * depth * c * after
            c_in, before = c, after
        # input of the last BatchNorm and what the last activation keeps; the linear layer keeps the pooled features
        return kept + 2 * c_in * before + c_in

    def build(self, spec: ArchSpec, num_classes: int, channels: int) -> nn.Module:
        """A freshly initialised WideResNet; draws from torch's global random state."""
        return WideResNet(spec, num_classes, channels)


FAMILY = WideResNetFamily()
