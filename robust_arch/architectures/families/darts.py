"""Networks of cells from a genotype (DARTS, Liu et al. 2019), with cells and channels per stage.

A cell reads the outputs of the two cells before it; its nodes each add two operations, and all nodes side by side are
its output. Each stage but the first begins with a reduction cell, whose operations on the cell's inputs have stride 2.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robust_arch.architectures.counting import (
    Count,
    Size,
    at_least_one,
    convolution,
    cost_terms_of,
    halved,
    linear,
    norm,
    pixels,
)
from robust_arch.architectures.family import AuxiliaryNetwork, CostTerms, ImageShape, KeyNames, StagedFamily
from robust_arch.architectures.layers import GlobalAveragePool, activation_copies, activation_params, make_activation
from robust_arch.architectures.spec import ArchSpec
from robust_arch.architectures.stems import StemOptions
from robust_arch.errors import invalid, require_flag

STRIDES = (1, 2, 2)
_AUXILIARY = (128, 768)  # channels of the auxiliary head
_LEAST_SIDE = {"cifar": 17, "imagenet": 129}  # with an auxiliary head, which averages 5x5 positions of the last stage

# the second-order genotype of the paper, DARTS_V2
NORMAL = (
    "sep_conv_3x3:0", "sep_conv_3x3:1", "sep_conv_3x3:0", "sep_conv_3x3:1",
    "sep_conv_3x3:1", "skip_connect:0", "skip_connect:0", "dil_conv_3x3:2",
)  # fmt: skip
REDUCE = (
    "max_pool_3x3:0", "max_pool_3x3:1", "skip_connect:2", "max_pool_3x3:1",
    "max_pool_3x3:0", "skip_connect:2", "skip_connect:2", "max_pool_3x3:1",
)  # fmt: skip


def _activation(name: str) -> nn.Module:
    """The activation as a module of a sequence."""
    activation = make_activation(name)
    return activation if isinstance(activation, nn.Module) else _Function(activation)


class _Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def _act_conv_norm(c_in: int, c_out: int, activation: str, kernel: int = 1, stride: int = 1) -> nn.Module:
    convolution = nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(_activation(activation), convolution, nn.BatchNorm2d(c_out))


class FactorizedReduce(nn.Module):
    """act, two 1x1 convolutions of every other position, shifted by one, side by side, then BN.

    (B, c_in, H, W) to (B, c_out, H/2, W/2), sizes rounded up: after an odd size the shifted one reads a row of zeros.
    """

    def __init__(self, c_in: int, c_out: int, activation: str) -> None:
        super().__init__()
        self.activation = _activation(activation)
        self.conv1 = nn.Conv2d(c_in, c_out // 2, 1, 2, bias=False) if c_out > 1 else None
        self.conv2 = nn.Conv2d(c_in, c_out - c_out // 2, 1, 2, bias=False)
        self.bn = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, c_in, H, W)."""
        activated = self.activation(x)
        shifted = F.pad(activated, (0, 1, 0, 1))[:, :, 1:, 1:]
        parts = [self.conv2(shifted)] if self.conv1 is None else [self.conv1(activated), self.conv2(shifted)]
        out: Tensor = self.bn(torch.cat(parts, 1))
        return out


def _separable(c: int, kernel: int, stride: int, dilation: int, activation: str) -> list[nn.Module]:
    """act, depthwise and pointwise convolution, BN."""
    padding = dilation * (kernel // 2)
    return [
        _activation(activation),
        nn.Conv2d(c, c, kernel, stride, padding, dilation, groups=c, bias=False),
        nn.Conv2d(c, c, 1, bias=False),
        nn.BatchNorm2d(c),
    ]


_KERNELS = {"3x3": 3, "5x5": 5, "7x7": 7}
OPERATIONS = (
    "max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "sep_conv_5x5", "sep_conv_7x7", "dil_conv_3x3",
    "dil_conv_5x5",
)  # fmt: skip


def _operation(name: str, c: int, stride: int, activation: str) -> nn.Module:
    """The operation of that name on c channels."""
    kind, kernel = name.rsplit("_", 1)
    if kind == "max_pool":
        return nn.MaxPool2d(3, stride, padding=1)
    if kind == "avg_pool":
        return nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
    if kind == "skip":
        return nn.Identity() if stride == 1 else FactorizedReduce(c, c, activation)
    size = _KERNELS[kernel]
    if kind == "dil_conv":
        return nn.Sequential(*_separable(c, size, stride, 2, activation))
    return nn.Sequential(*_separable(c, size, stride, 1, activation), *_separable(c, size, 1, 1, activation))


def _operation_count(name: str, c: Any, stride: int, size: Size, act: Count) -> Count:
    """The cost of the operation, whose output has this size."""
    kind, kernel = name.rsplit("_", 1)
    if kind in ("max_pool", "avg_pool"):
        return Count()
    if kind == "skip":
        return Count() if stride == 1 else act + convolution(c, c, 1, size) + norm(c)
    layer = act + convolution(c, c, _KERNELS[kernel], size, groups=c) + convolution(c, c, 1, size) + norm(c)
    return layer if kind == "dil_conv" else layer * 2


Edges = tuple[tuple[str, int], ...]
"""Operations and the numbers of what they read: 0 and 1 for the two inputs, then the nodes."""


def _edges(key: str, given: Any) -> Edges:
    """The edges of a cell from texts like sep_conv_3x3:0; raises InputError for a cell that cannot be built."""
    allowed = "pairs of edges like sep_conv_3x3:0, an operation and the number of an input or of a node before"
    if not isinstance(given, tuple) or not given or len(given) % 2 or not all(isinstance(edge, str) for edge in given):
        raise invalid(f"arch.options.{key}", given, allowed)
    edges = []
    for place, edge in enumerate(given):
        name, _, number = edge.partition(":")
        if name not in OPERATIONS:
            raise invalid(f"arch.options.{key}", edge, f"an operation of {', '.join(OPERATIONS)}")
        if number not in map(str, range(2 + place // 2)):
            raise invalid(f"arch.options.{key}", edge, allowed)
        edges.append((name, int(number)))
    if not any(number == 1 for _, number in edges):
        raise invalid(f"arch.options.{key}", given, "a cell that reads input 1, the output of the cell before")
    return tuple(edges)


@dataclass(frozen=True)
class DARTSOptions(StemOptions):
    """Options of the family.

    Attributes:
        stem: cifar, a 3x3 convolution and BN, which both inputs of the first cell read; or imagenet, three convolutions
            at stride 2, the first to half of `arch.stem_width` channels, of which the cell reads the last two.
        normal: edges of the normal cell, two per node, like sep_conv_3x3:0; by default those of DARTS_V2.
        reduce: edges of the reduction cell.
        auxiliary: whether a second classifier reads the first cell of the last stage; its cross-entropy is added to the
            training loss.
    """

    normal: tuple[str, ...] = NORMAL
    reduce: tuple[str, ...] = REDUCE
    auxiliary: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _edges("normal", self.normal), _edges("reduce", self.reduce)
        require_flag("arch.options.auxiliary", self.auxiliary)

    def edges(self, reduces: bool) -> Edges:
        """The edges of the reduction cell or of the normal one."""
        return _edges("reduce", self.reduce) if reduces else _edges("normal", self.normal)


class Cell(nn.Module):
    """One cell: (B, c_before, H', W') and (B, c_in, H, W) to (B, nodes * c, H/stride, W/stride).

    before_is_larger: whether the first input has twice the second one's resolution.
    """

    def __init__(
        self, edges: Edges, channels: tuple[int, int, int], stride: int, before_is_larger: bool, spec: ArchSpec
    ) -> None:
        super().__init__()
        c_before, c_in, c = channels
        self.edges, self.drop_path = edges, spec.dropout
        # an input that no edge reads has no layers, whose parameters would get no gradient
        self.reads_before = any(number == 0 for _, number in edges)
        if self.reads_before:
            entering = FactorizedReduce if before_is_larger else _act_conv_norm
            self.before = entering(c_before, c, spec.activation)
        self.entering = _act_conv_norm(c_in, c, spec.activation)
        operations = [_operation(name, c, stride if number < 2 else 1, spec.activation) for name, number in edges]
        self.operations = nn.ModuleList(operations)

    def forward(self, before: Tensor, x: Tensor) -> Tensor:
        """before: the output of the cell two before; x: that of the cell before."""
        entering = self.entering(x)
        states = [self.before(before) if self.reads_before else entering, entering]
        for i in range(0, len(self.edges), 2):
            first, second = (self._edge(edge, states[self.edges[edge][1]]) for edge in (i, i + 1))
            states.append(first + second)
        return torch.cat(states[2:], 1)

    def _edge(self, edge: int, state: Tensor) -> Tensor:
        """One operation, which in training is left out for part of the images if `arch.dropout` says so."""
        operation = self.operations[edge]
        out: Tensor = operation(state)
        if self.training and self.drop_path and not isinstance(operation, nn.Identity):
            kept = torch.rand(len(out), 1, 1, 1, device=out.device) >= self.drop_path
            out = out * kept / (1 - self.drop_path)
        return out


class AuxiliaryHead(nn.Module):
    """act-pool-conv-BN-act-conv-BN-act-linear: (B, C, H, W) to logits (B, K).

    The second pooling changes nothing where the first leaves 2x2 positions, as in the paper's code. stride: of the
    first pooling, 3 for the stem of CIFAR and 2 for that of ImageNet.
    """

    def __init__(self, channels: int, num_classes: int, activation: str, stride: int) -> None:
        super().__init__()
        narrow, wide = _AUXILIARY
        self.layers = nn.Sequential(
            _activation(activation),
            nn.AvgPool2d(5, stride),
            nn.AdaptiveAvgPool2d(2),
            nn.Conv2d(channels, narrow, 1, bias=False),
            nn.BatchNorm2d(narrow),
            _activation(activation),
            nn.Conv2d(narrow, wide, 2, bias=False),
            nn.BatchNorm2d(wide),
            _activation(activation),
            nn.Flatten(),
            nn.Linear(wide, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W)."""
        logits: Tensor = self.layers(x)
        return logits


_POOL_STRIDE = {"cifar": 3, "imagenet": 2}
"""Strides of the auxiliary head's pooling."""


class CellNetwork(AuxiliaryNetwork):
    """Stem, cells, mean and linear layer: (B, C, H, W) to logits (B, K)."""

    def __init__(self, spec: ArchSpec, num_classes: int, channels: int) -> None:
        super().__init__()
        chosen = DARTSOptions.read(spec.options)
        width, is_small = spec.stem_width, chosen.stem == "cifar"
        first = width if is_small else _half(width)
        self.stem = nn.Conv2d(channels, first, 3, 1 if is_small else 2, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(first)
        pairs = [] if is_small else [(first, width), (width, width)]
        self.reductions = nn.ModuleList(_act_conv_norm(*pair, spec.activation, 3, 2) for pair in pairs)
        cells: list[nn.Module] = []
        c_before = c_in = spec.stem_width
        reduced = not is_small
        self.auxiliary_cell, auxiliary_channels = sum(spec.depths[:-1]), 0
        for stage, (depth, width) in enumerate(zip(spec.depths, spec.widths, strict=True)):
            for i in range(depth):
                reduces = stage > 0 and i == 0
                edges = chosen.edges(reduces)
                cells.append(Cell(edges, (c_before, c_in, width), 2 if reduces else 1, reduced, spec))
                c_before, c_in, reduced = c_in, width * (len(edges) // 2), reduces
                if len(cells) == self.auxiliary_cell + 1:
                    auxiliary_channels = c_in
        self.cells = nn.ModuleList(cells)
        self.auxiliary = None
        if chosen.auxiliary:
            stride = _POOL_STRIDE[chosen.stem]
            self.auxiliary = AuxiliaryHead(auxiliary_channels, num_classes, spec.activation, stride)
        self.pool = GlobalAveragePool()
        self.fc = nn.Linear(c_in, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W), normalised. Returns logits (B, K)."""
        before = x = self.stem_norm(self.stem(x))
        for reduction in self.reductions:
            before, x = x, reduction(x)
        for i, cell in enumerate(self.cells):
            before, x = x, cell(before, x)
            if i == self.auxiliary_cell and self.auxiliary is not None and self.training:
                self.auxiliary_logits = self.auxiliary(x)
        logits: Tensor = self.fc(self.pool(x))
        return logits


def _where(condition: Any, yes: Any, no: Any) -> Any:
    """`yes` where the condition holds; of integers or arrays."""
    return condition * yes + (1 - condition * 1) * no


def _liu(key: str, spec: ArchSpec) -> str:
    """The names of Liu et al. 2019: `cells.0.preprocess0.op.1.weight`."""
    module, rest = key.split(".", 1)
    if module == "auxiliary":
        _, layer, tensor = rest.split(".")
        # their head has no second pooling, no layer that flattens, and the linear layer outside
        place = "classifier" if layer == "10" else f"features.{int(layer) - (layer != '0')}"
        return f"auxiliary_head.{place}.{tensor}"
    if module == "reductions":
        number, layer, tensor = rest.split(".")
        # their first two convolutions are one sequence
        return f"stem0.{int(layer) + 2}.{tensor}" if number == "0" else f"stem1.{layer}.{tensor}"
    if module != "cells":
        stem = "stem" if DARTSOptions.read(spec.options).stem == "cifar" else "stem0"
        return f"{({'stem': f'{stem}.0', 'stem_norm': f'{stem}.1', 'fc': 'classifier'})[module]}.{rest}"
    cell, part, rest = rest.split(".", 2)
    operation = ""
    if part == "operations":
        number, rest = rest.split(".", 1)
        operation = f".{number}"
    # a sequence of layers is called op; a FactorizedReduce is not one
    first, tensor = rest.split(".", 1)
    inside = f"op.{rest}" if first.isdigit() else f"{_REDUCTION[first]}.{tensor}"
    return f"cells.{cell}.{_PARTS[part]}{operation}.{inside}"


_PARTS = {"before": "preprocess0", "entering": "preprocess1", "operations": "_ops"}
_REDUCTION = {"activation": "relu", "conv1": "conv_1", "conv2": "conv_2", "bn": "bn"}


class DARTSFamily(StagedFamily):
    """Three stages of cells; the closed-form cost counts convolutions and the linear layer.

    The MACs are those of the network in use, without the auxiliary head, whose parameters count.
    """

    strides = STRIDES
    has_dropout = True
    options = DARTSOptions
    published_keys = MappingProxyType({"liu2019": KeyNames(_liu, reads_spec=True, unused=("auxiliary_head.",))})

    def check_image(self, spec: ArchSpec, image_shape: ImageShape) -> None:
        """Raise InputError for images that the auxiliary head cannot average."""
        chosen = DARTSOptions.read(spec.options)
        if chosen.auxiliary and min(image_shape[1:]) < (least := _LEAST_SIDE[chosen.stem]):
            raise invalid("image_shape", image_shape, f"at least {least} pixels per side with arch.options.auxiliary")

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
        stages = []
        outside, size = _stem_count(chosen.stem, image_shape, stem_width, act)
        c_before, c_in = stem_width, stem_width  # of the two cells before the stage
        auxiliary = Count()
        for stage, (depth, c) in enumerate(zip(depths, widths, strict=True)):
            before, size = size, halved(size) if stage > 0 else size
            first, c_first = _cell_count(chosen.edges(stage > 0), (c_before, c_in, c), stage > 0, (before, size), act)
            normal = chosen.edges(False)
            second, c_out = _cell_count(normal, (c_in, c_first, c), False, (size, size), act)
            third, _ = _cell_count(normal, (c_first, c_out, c), False, (size, size), act)
            rest, _ = _cell_count(normal, (c_out, c_out, c), False, (size, size), act)
            stages.append(first + second * (depth > 1) + third * (depth > 2) + rest * ((depth > 3) * (depth - 3)))
            c_last = _where(depth > 1, c_out, c_first)
            c_before = _where(depth > 2, c_out, _where(depth > 1, c_first, c_in))
            if chosen.auxiliary and stage == len(STRIDES) - 1:
                auxiliary = _auxiliary_count(c_first, num_classes, act)
            c_in = c_last
        return cost_terms_of(stages, outside + auxiliary + linear(c_in, num_classes))

    def kept_activations(self, spec: ArchSpec, image_shape: ImageShape) -> int:
        """Numbers per image kept for the backward pass, from the layers' shapes; without the flags of drop path."""
        chosen, keeps_input = DARTSOptions.read(spec.options), spec.activation != "relu"
        kept, *sizes = _stem_kept(spec, chosen.stem, image_shape)
        before, x = ((spec.stem_width, size) for size in sizes)
        was_reduced = chosen.stem == "imagenet"
        for stage, (depth, width) in enumerate(zip(spec.depths, spec.widths, strict=True)):
            for i in range(depth):
                reduces = stage > 0 and i == 0
                edges = chosen.edges(reduces)
                kept += _cell_kept(edges, (before, x, width), (reduces, was_reduced), spec.activation)
                before, x = x, (width * (len(edges) // 2), halved(x[1]) if reduces else x[1])
                kept += keeps_input * x[0] * pixels(x[1])
                was_reduced = reduces
                if chosen.auxiliary and stage == len(STRIDES) - 1 and i == 0:
                    kept += _auxiliary_kept(x, spec.activation, _POOL_STRIDE[chosen.stem])
        if not (chosen.auxiliary and spec.depths[-1] == 1):
            kept -= keeps_input * x[0] * pixels(x[1])  # no activation reads the last cell's output
        return kept + x[0]

    def build(self, spec: ArchSpec, num_classes: int, channels: int) -> nn.Module:
        """A freshly initialised network, as torch's layers start; draws from torch's global random state."""
        return CellNetwork(spec, num_classes, channels)


def _half(width: Any) -> Any:
    """Channels after the first convolution of ImageNet's stem."""
    return at_least_one(width // 2)


def _stem_count(stem: str, image_shape: ImageShape, width: Any, act: Count) -> tuple[Count, Size]:
    """The cost of the stem, and the size after it."""
    channels, *sides = image_shape
    size = sides[0], sides[1]
    if stem == "cifar":
        return convolution(channels, width, 3, size) + norm(width), size
    half, first = _half(width), halved(size)
    second = halved(first)
    last = halved(second)
    count = convolution(channels, half, 3, first) + norm(half) + convolution(half, width, 3, second) + norm(width)
    return count + convolution(width, width, 3, last) + norm(width) + act * 2, last


def _stem_kept(spec: ArchSpec, stem: str, image_shape: ImageShape) -> tuple[int, Size, Size]:
    """Kept by the stem, with its outputs where an activation keeps them, and the sizes of the first cell's inputs."""
    channels, *sides = image_shape
    size = sides[0], sides[1]
    width, keeps_input, fresh = spec.stem_width, spec.activation != "relu", _fresh(spec.activation)
    if stem == "cifar":
        return (channels + width * (1 + keeps_input)) * pixels(size), size, size
    first = halved(size)
    second = halved(first)
    last = halved(second)
    kept = channels * pixels(size) + _half(width) * (1 + keeps_input + fresh) * pixels(first)
    kept += width * ((1 + keeps_input + fresh) * pixels(second) + (1 + keeps_input) * pixels(last))
    return int(kept), second, last


def _cell_count(
    edges: Edges, channels: tuple[Any, Any, Any], reduces: bool, sizes: tuple[Size, Size], act: Count
) -> tuple[Count, Any]:
    """The cost of a cell and the channels of its output. channels: as of `Cell`; sizes: before and after its stride."""
    c_before, c_in, c = channels
    entering, size = sizes
    count = act + convolution(c_in, c, 1, entering) + norm(c)
    if any(number == 0 for _, number in edges):
        count += act + convolution(c_before, c, 1, entering) + norm(c)
    for name, number in edges:
        count += _operation_count(name, c, 2 if reduces and number < 2 else 1, size, act)
    return count, c * (len(edges) // 2)


def _reduction_kept(c_in: int, c: int, size: Size, activation: str) -> int:
    """Kept by `FactorizedReduce` beside its input."""
    # a single output channel is that of the shifted positions, so that only their padded copy is read
    activated = _fresh(activation) - (c == 1 and activation != "relu")
    padded = c_in * (size[0] + 1) * (size[1] + 1)
    return activated * c_in * pixels(size) + padded + c * pixels(halved(size))


def _fresh(activation: str) -> int:
    """How many tensors of its size an activation and the convolution after it keep beside the activation's input."""
    return activation_copies(activation) - (activation != "relu")


def _operation_kept(name: str, c: int, stride: int, sizes: tuple[Size, Size], activation: str) -> int:
    """Kept by an operation beside its input. sizes: before and after its stride."""
    kind, _ = name.rsplit("_", 1)
    keeps_input, fresh, after = activation != "relu", _fresh(activation), c * pixels(sizes[1])
    if kind == "max_pool":
        return 2 * after  # the place of each maximum, an integer of 64 bits
    if kind == "avg_pool" or (kind == "skip" and stride == 1):
        return 0
    if kind == "skip":
        return _reduction_kept(c, c, sizes[0], activation)
    layer = fresh * c * pixels(sizes[0]) + 2 * after
    return layer if kind == "dil_conv" else layer + (keeps_input + fresh + 2) * after


def _cell_kept(
    edges: Edges, inputs: tuple[tuple[int, Size], tuple[int, Size], int], reduces: tuple[bool, bool], activation: str
) -> int:
    """Kept by a cell beside its inputs.

    inputs: channels and size of the two inputs, and the cell's channels. reduces: whether it reduces, and whether the
    cell before did.
    """
    (c_before, size_before), (c_in, size), c = inputs
    after = halved(size) if reduces[0] else size
    keeps_input, fresh = activation != "relu", _fresh(activation)
    kept = (fresh * c_in + c) * pixels(size)
    if any(number == 0 for _, number in edges):
        larger = _reduction_kept(c_before, c, size_before, activation)
        kept += larger if reduces[1] else (fresh * c_before + c) * pixels(size_before)
    read = set()  # states that an operation keeps
    for name, number in edges:
        entering, strided_here = (size, reduces[0]) if number < 2 else (after, False)
        kept += _operation_kept(name, c, 2 if strided_here else 1, (entering, after), activation)
        is_skip = name == "skip_connect" and not strided_here
        if "pool" in name or (keeps_input and not is_skip):
            read.add(number)
    return kept + sum(c * pixels(size if number < 2 else after) for number in read)


def _auxiliary_kept(features: tuple[int, Size], activation: str, stride: int) -> int:
    """Kept by the auxiliary head beside its input. features: channels and size of its input; stride: of its pooling."""
    (channels, (height, width)), (narrow, wide) = features, _AUXILIARY
    copies = activation_copies(activation)
    pooled = ((height - 5) // stride + 1) * ((width - 5) // stride + 1)
    entering = _fresh(activation) * height * width + pooled + 4
    return channels * entering + (1 + copies) * (4 * narrow + wide)


def _auxiliary_count(channels: Any, num_classes: int, act: Count) -> Count:
    """The parameters of the auxiliary head."""
    narrow, wide = _AUXILIARY
    layers = convolution(channels, narrow, 1, (2, 2)) + norm(narrow) + convolution(narrow, wide, 2, (1, 1)) + norm(wide)
    return Count((layers + act * 3 + linear(wide, num_classes)).params)


FAMILY = DARTSFamily()
