"""Rules by which networks of three stages are scaled to a budget: which depths and widths go together.

Widths are widening factors of 16, 32 and 64 channels. Every rule takes a template, whose family and other settings the
result has.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from robust_arch.architectures import ArchSpec, ImageShape
from robust_arch.architectures.cost import cost_terms
from robust_arch.architectures.family import DEFAULT_FAMILY
from robust_arch.errors import InputError, invalid, require_choice, require_integer
from robust_arch.search.budget import Budget

BASE_WIDTHS = (16, 32, 64)
SHRUNK_LAST = (1.0, 1.0, 0.4)
"""Widening factors of WRN-34-R, 20-20-8, over the first one (Huang et al. 2021)."""

_MOST_CHANNELS = 8192  # of a stage
_MOST_BLOCKS, _MOST_WIDENING = 1000, 400  # sums over the stages
_RATIO_SLACK = 0.15  # by which depth : width of a published network may deviate from 7 : 3; RobustResNet-A2 does by 0.1


def standard(
    budget: Budget,
    blocks: int = 5,
    width_step: int = 16,
    *,
    template: ArchSpec | None = None,
    num_classes: int = 10,
    image_shape: ImageShape = (3, 32, 32),
) -> ArchSpec:
    """WRN-n-k with n = 6 blocks + 4 (Zagoruyko and Komodakis 2016): `blocks` per stage, one widening factor for all.

    The factor is the one whose cost is nearest to the budget, in steps of width_step channels of the first stage.

    Raises:
        InputError: if no factor meets the budget.
    """
    return _widened(budget, (1.0, 1.0, 1.0), blocks, width_step, template, num_classes, image_shape)


def shrink_last(
    budget: Budget,
    blocks: int = 5,
    width_step: int = 16,
    *,
    template: ArchSpec | None = None,
    num_classes: int = 10,
    image_shape: ImageShape = (3, 32, 32),
) -> ArchSpec:
    """The rule of Huang et al. 2021: as `standard`, with a last stage of 0.4 times the widening factor.

    Raises:
        InputError: if no factor meets the budget.
    """
    return _widened(budget, SHRUNK_LAST, blocks, width_step, template, num_classes, image_shape)


def robust_scaling(
    budget: Budget,
    *,
    template: ArchSpec | None = None,
    num_classes: int = 10,
    image_shape: ImageShape = (3, 32, 32),
) -> ArchSpec:
    """RobustScaling (Huang et al. 2023): sum of depths : sum of widening factors = 7 : 3.

    Depths are 2 : 2 : 1 and widening factors 2 : 2.5 : 1, in integers rounded as in the published networks. Of the sums
    that meet the budget those whose ratio is nearest to 7 : 3 are taken, then those nearest to the budget; the ratio
    deviates by at most 15%.

    Raises:
        InputError: if no such sums meet the budget.
    """
    blocks, widening = (axis.ravel() for axis in np.meshgrid(np.arange(5, _MOST_BLOCKS), np.arange(4, _MOST_WIDENING)))
    misfit = np.abs(np.log(blocks / widening / (7 / 3)))
    near = misfit <= np.log1p(_RATIO_SLACK)
    depths = robust_depths(blocks[near])
    widths = [base * factor for base, factor in zip(BASE_WIDTHS, robust_widening(widening[near]), strict=True)]
    return _nearest(budget, depths, widths, np.round(misfit[near], 9), template, num_classes, image_shape)


RULES: dict[str, Callable[..., ArchSpec]] = {
    "standard": standard,
    "shrink_last": shrink_last,
    "robust_scaling": robust_scaling,
}


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """A rule and what it needs besides the budget.

    Attributes:
        rule: one of RULES.
        blocks: per stage; 5 where it is None. robust_scaling finds the depths itself.
    """

    rule: str
    blocks: int | None = None

    def __post_init__(self) -> None:
        require_choice("search.scaling.rule", self.rule, tuple(RULES))
        if self.blocks is not None and self.rule == "robust_scaling":
            raise invalid(
                "search.scaling.blocks", self.blocks, "null for robust_scaling, which finds the depths itself"
            )
        if self.blocks is not None:
            require_integer("search.scaling.blocks", self.blocks, 1)

    def network(
        self, budget: Budget, template: ArchSpec, width_step: int, num_classes: int, image_shape: ImageShape
    ) -> ArchSpec:
        """The network of the rule that meets the budget; InputError if there is none."""
        task: dict[str, Any] = {"template": template, "num_classes": num_classes, "image_shape": image_shape}
        if self.rule == "robust_scaling":
            return robust_scaling(budget, **task)
        blocks = 5 if self.blocks is None else self.blocks
        return RULES[self.rule](budget, blocks=blocks, width_step=width_step, **task)


def robust_depths(total: np.ndarray) -> list[np.ndarray]:
    """Blocks per stage, 2 : 2 : 1, from sums of at least 5: the first rounded, the last rounded down, then the rest."""
    first, last = np.rint(0.4 * total).astype(np.int64), (total // 5).astype(np.int64)
    return [first, total - first - last, last]


def robust_widening(total: np.ndarray) -> list[np.ndarray]:
    """Widening factors, 2 : 2.5 : 1, from sums of at least 4: the first rounded down, the second rounded, the rest."""
    first, second = (4 * total // 11).astype(np.int64), np.rint(5 * total / 11).astype(np.int64)
    return [first, second, total - first - second]


def _widened(
    budget: Budget,
    factors: Sequence[float],
    blocks: int,
    step: int,
    template: ArchSpec | None,
    num_classes: int,
    image_shape: ImageShape,
) -> ArchSpec:
    """The nearest to the budget of networks whose widening factors are multiples of `factors`."""
    require_integer("blocks", blocks, 1)
    require_integer("width_step", step, 1)
    first = np.arange(step, _MOST_CHANNELS + 1, step, dtype=np.int64)
    widths = []
    for base, factor in zip(BASE_WIDTHS, factors, strict=True):
        steps = np.rint(first / BASE_WIDTHS[0] * base * factor / step).astype(np.int64)
        widths.append(step * np.maximum(steps, 1))
    depths = [np.full(len(first), blocks)] * len(widths)
    return _nearest(budget, depths, widths, np.zeros(len(first)), template, num_classes, image_shape)


def _nearest(
    budget: Budget,
    depths: Sequence[np.ndarray],
    widths: Sequence[np.ndarray],
    misfit: np.ndarray,
    template: ArchSpec | None,
    num_classes: int,
    image_shape: ImageShape,
) -> ArchSpec:
    """Of many architectures the one inside the budget with the least `misfit`, and of those nearest to the budget."""
    if not budget.resources:
        raise invalid("search.budget", str(budget), "params or macs")
    if template is None:
        template = ArchSpec(DEFAULT_FAMILY, (1, 1, 1), BASE_WIDTHS)
    if len(template.depths) != len(BASE_WIDTHS):
        raise invalid("arch.family", template.family, f"a family of {len(BASE_WIDTHS)} stages, as the rules need")
    terms = cost_terms(template, depths, widths, num_classes, image_shape)
    resource = budget.resources[0]
    distance = np.abs(getattr(terms, resource) / getattr(budget, resource) - 1)
    inside = np.flatnonzero(budget.contains(terms.params, terms.macs))
    if not len(inside):
        nearest = int(getattr(terms, resource)[np.argmin(distance)])
        raise InputError(
            f"search.budget = {budget}: no network of this rule meets it; the nearest has {nearest:,} {resource}"
        )
    best = inside[np.lexsort((distance[inside], misfit[inside]))[0]]
    chosen_depths, chosen_widths = (tuple(int(axis[best]) for axis in axes) for axes in (depths, widths))
    return replace(template, depths=chosen_depths, widths=chosen_widths)
