"""What a family of architectures provides; a family is one module in `families/`, found by its name."""

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, cast

from torch import nn

from robust_arch.architectures import families
from robust_arch.errors import invalid

if TYPE_CHECKING:
    from robust_arch.architectures.spec import ArchSpec

ImageShape = tuple[int, int, int]


@dataclass(frozen=True)
class CostTerms:
    """Parameters and MACs of each stage and of what stands outside the stages (stem and head).

    Entries are integers, or int64 arrays where the widths or depths were arrays.
    """

    stage_params: tuple[Any, ...]
    stage_macs: tuple[Any, ...]
    outside_params: Any
    outside_macs: Any


def staged_terms(
    stage: Callable[[Any, Any, Any, int, int], tuple[Any, Any]],
    strides: Sequence[int],
    depths: Sequence[Any],
    widths: Sequence[Any],
    stem_width: int,
    num_classes: int,
    image_shape: ImageShape,
) -> CostTerms:
    """The cost of a 3x3 stem, stages and a linear head; BatchNorm outside the stages is for the family to add.

    stage: from channels in and out, depth, stride and positions of the feature map after it to parameters and MACs.
    """
    channels, height, width = image_shape
    stem = 9 * channels * stem_width
    stem_macs = stem * height * width
    stages = []
    c_in: Any = stem_width
    for depth, c, stride in zip(depths, widths, strides, strict=True):
        height, width = -(-height // stride), -(-width // stride)
        stages.append(stage(c_in, c, depth, stride, height * width))
        c_in = c
    return CostTerms(
        stage_params=tuple(params for params, _ in stages),
        stage_macs=tuple(macs for _, macs in stages),
        outside_params=stem + c_in * num_classes + num_classes,
        outside_macs=stem_macs + c_in * num_classes,
    )


def feature_pixels(image_shape: ImageShape, strides: Sequence[int]) -> tuple[int, ...]:
    """Positions of the feature map before the stages and after each of them, whose first blocks have these strides."""
    _, height, width = image_shape
    pixels = [height * width]
    for stride in strides:
        height, width = -(-height // stride), -(-width // stride)
        pixels.append(height * width)
    return tuple(pixels)


@dataclass(frozen=True)
class KeyNames:
    """A layout of published checkpoints: for each of our state-dict keys the name that it has there.

    unused: prefixes of keys that the layout's code saves besides, though its network never uses them.
    """

    published: Callable[[str], str]
    unused: tuple[str, ...] = ()

    def __call__(self, key: str) -> str:
        """The published name of one of our keys."""
        return self.published(key)


class StagedNetwork(Protocol):
    """What the network of every family provides: its parts and how their Lipschitz constants are bounded."""

    stem: nn.Module
    stages: nn.Sequential

    def lipschitz_bounds(self, norm: Callable[[nn.Module], float]) -> dict[str, float]:
        """Upper bounds of the l2 Lipschitz constants, in evaluation mode, of "stem", "stage 1", ..., "head" alone.

        "stem" is all before the first stage, "head" all behind the last one. norm: the l2 operator norm of a layer, on
        the sizes that it works on; all but the activations are layers, the pooling too.
        """


class Family(Protocol):
    """A family: which specs are legal, what one costs without building it, how to build it, its published names."""

    @property
    def published_keys(self) -> Mapping[str, KeyNames]:
        """Layouts by name, the usual one first; keys are those of `build`'s state dict."""

    def validate(self, spec: "ArchSpec") -> None:
        """Raise InputError if no member of the family has this spec."""

    def cost_terms(
        self,
        depths: Sequence[Any],
        widths: Sequence[Any],
        stem_width: int,
        num_classes: int,
        image_shape: ImageShape,
    ) -> CostTerms:
        """Closed-form cost; depths and widths may be int64 arrays, for many architectures at once."""

    def kept_activations(self, spec: "ArchSpec", image_shape: ImageShape) -> int:
        """Numbers an image that one forward pass in training mode keeps for the backward pass to the weights.

        Counted is every distinct tensor with an entry an image that autograd saves, from the normalised image to the
        pooled features; not parameters, statistics of BatchNorm and the loss. Dropout counts as on a CPU, where its
        mask is of numbers.
        """

    def build(self, spec: "ArchSpec", num_classes: int, channels: int) -> nn.Module:
        """A network from normalised images (B, channels, H, W) to logits (B, num_classes).

        A `StagedNetwork`: its first convolution is `stem`, its stages are `stages`; its last linear layer is `fc`.
        """


def family_names() -> list[str]:
    """The families there are: the modules of `robust_arch.architectures.families`."""
    return sorted(module.name for module in pkgutil.iter_modules(families.__path__))


def get_family(name: str) -> Family:
    """The family of that name; an unknown one raises InputError."""
    if not isinstance(name, str):
        raise invalid("arch.family", name, f"one of {', '.join(family_names())}")
    return _family(name)


@cache  # asked for once for every spec, of which a plan has many thousands
def _family(name: str) -> Family:
    if name not in family_names():
        raise invalid("arch.family", name, f"one of {', '.join(family_names())}")
    module = importlib.import_module(f"{families.__name__}.{name}")
    return cast(Family, module.FAMILY)
