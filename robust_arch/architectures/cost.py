"""What an architecture costs: in closed form, without building it, or counted for a network of the user's own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from robust_arch.architectures.custom import AnyArch, CustomArch, measured
from robust_arch.architectures.family import CostTerms, ImageShape, family_of, get_family
from robust_arch.architectures.spec import ArchSpec
from robust_arch.errors import invalid


@dataclass(frozen=True)
class Cost:
    """Parameters (all trainable numbers) and multiply-accumulates per image, in total and by stage.

    MACs count convolutions and linear layers; no BatchNorm, no activation, no bias. A network of the user's own has no
    stages; `CustomArch.measure` counts it.
    """

    params: int
    macs: int
    stage_params: tuple[int, ...]
    stage_macs: tuple[int, ...]

    def stages(self, resource: str) -> tuple[int, ...]:
        """The cost of each stage in `resource`, "params" or "macs"."""
        if resource not in ("params", "macs"):
            raise invalid("resource", resource, "params or macs")
        return self.stage_params if resource == "params" else self.stage_macs

    def shares(self, resource: str = "params") -> tuple[float, ...]:
        """Each stage's part of the stages' sum of `resource` ("params" or "macs"); stem and head are left out."""
        parts = self.stages(resource)
        return tuple(part / sum(parts) for part in parts)


def check_task(num_classes: int, image_shape: ImageShape) -> None:
    """Raise InputError unless there are at least two classes and images of at least 1x1x1."""
    if num_classes < 2:
        raise invalid("num_classes", num_classes, "at least 2")
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise invalid("image_shape", image_shape, "(channels, height, width), each at least 1")


def cost_terms(
    template: ArchSpec, depths: Sequence[Any], widths: Sequence[Any], num_classes: int, image_shape: ImageShape
) -> CostTerms:
    """Cost of the template with these depths and widths, which may be int64 arrays, for many architectures at once."""
    return family_of(template).cost_terms(depths, widths, template.stem_width, num_classes, image_shape)


def cost(spec: AnyArch, num_classes: int = 10, image_shape: ImageShape = (3, 32, 32)) -> Cost:
    """The cost of `spec` on images of `image_shape` (C, H, W) in `num_classes` classes."""
    check_task(num_classes, image_shape)
    if isinstance(spec, CustomArch):
        return Cost(*measured(spec, num_classes, image_shape), (), ())
    get_family(spec.family).check_image(spec, image_shape)
    terms = cost_terms(spec, spec.depths, spec.widths, num_classes, image_shape)
    return Cost(
        int(terms.params), int(terms.macs), tuple(map(int, terms.stage_params)), tuple(map(int, terms.stage_macs))
    )


def activation_bytes(spec: AnyArch, image_shape: ImageShape = (3, 32, 32)) -> int | None:
    """Bytes per image that one forward pass in training keeps for the backward pass, in float32.

    None where they are not available for the family. `Family.kept_activations` defines what counts; an objective of
    two forward passes keeps twice as much. image_shape: (C, H, W).
    """
    check_task(2, image_shape)
    if isinstance(spec, CustomArch):
        return None
    kept = get_family(spec.family).kept_activations(spec, image_shape)
    return None if kept is None else 4 * kept
