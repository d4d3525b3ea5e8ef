"""What a family of architectures provides; a family is one module in `families/`, found by its name."""

import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
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


class Family(Protocol):
    """A family: which specs are legal, what one costs without building it, and how to build it."""

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

    def build(self, spec: "ArchSpec", num_classes: int, channels: int) -> nn.Module:
        """A network from normalised images (B, channels, H, W) to logits (B, num_classes)."""


def family_names() -> list[str]:
    """The families there are: the modules of `robust_arch.architectures.families`."""
    return sorted(module.name for module in pkgutil.iter_modules(families.__path__))


def get_family(name: str) -> Family:
    """The family of that name; an unknown one raises InputError."""
    if name not in family_names():
        raise invalid("arch.family", name, f"one of {', '.join(family_names())}")
    module = importlib.import_module(f"{families.__name__}.{name}")
    return cast(Family, module.FAMILY)
