"""Which architectures a study considers: a grid of choices a stage, or divisions of the budget."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from robust_arch.architectures import ArchSpec, ImageShape, cost
from robust_arch.architectures.family import get_family
from robust_arch.errors import InputError, invalid
from robust_arch.search.allocation import allocate, check_shares
from robust_arch.search.budget import Budget

_CHUNK = 1_000_000  # grid points whose cost is computed at once: some 100 MB
_NEAREST = 20  # rejected points that are kept, to show how the budget was missed


@dataclass(frozen=True)
class Rejected:
    """A point of the space that is not in the plan, with the reason."""

    description: str
    reason: str


@dataclass(frozen=True)
class Members:
    """The architectures of a space inside a budget, and what was left out.

    considered: points of the space; rejected: the nearest of those outside; rejected_count: how many there are.
    """

    specs: tuple[ArchSpec, ...]
    considered: int
    rejected: tuple[Rejected, ...]
    rejected_count: int


@dataclass(frozen=True, kw_only=True)
class Space:
    """Choices for each stage. template: family and everything that is not depth or width.

    depths: for each stage the depths to try. widths: for each stage the widths to try; or shares: divisions of the
    budget over the stages, from which widths in multiples of `width_step` follow.
    """

    template: ArchSpec
    depths: tuple[tuple[int, ...], ...]
    widths: tuple[tuple[int, ...], ...] | None = None
    shares: tuple[tuple[float, ...], ...] | None = None
    width_step: int = 8

    def __post_init__(self) -> None:
        if (self.widths is None) == (self.shares is None):
            raise InputError("search.space: set either widths (choices a stage) or shares (divisions of the budget)")
        object.__setattr__(self, "depths", _choices("search.space.depths", self.depths))
        if self.widths is not None:
            object.__setattr__(self, "widths", _choices("search.space.widths", self.widths))
            if len(self.widths) != len(self.depths):
                raise invalid("search.space.widths", self.widths, f"as many stages as depths, {len(self.depths)}")
        if self.shares is not None:
            is_list = isinstance(self.shares, list | tuple)
            if not is_list or not all(isinstance(share, list | tuple) for share in self.shares):
                raise invalid("search.space.shares", self.shares, "a list of divisions, like [[0.2,0.3,0.5]]")
            shares = tuple(check_shares(share, len(self.depths)) for share in self.shares)
            object.__setattr__(self, "shares", shares)
        self.template_with([stage[0] for stage in self.depths], [stage[0] for stage in self.widths or self.depths])

    def template_with(self, depths: Sequence[int], widths: Sequence[int]) -> ArchSpec:
        """The template at these depths and widths."""
        return replace(self.template, depths=tuple(depths), widths=tuple(widths))

    def members(self, budget: Budget, num_classes: int, image_shape: ImageShape) -> Members:
        """What of the space is inside the budget for this task."""
        if self.shares is not None:
            return self._allocations(budget, num_classes, image_shape)
        return self._grid_members(budget, num_classes, image_shape)

    def _allocations(self, budget: Budget, num_classes: int, image_shape: ImageShape) -> Members:
        specs: dict[ArchSpec, str] = {}
        rejected = []
        points = list(itertools.product(itertools.product(*self.depths), self.shares or ()))
        for depths, shares in points:
            description = f"depths {'-'.join(map(str, depths))}, shares {'-'.join(f'{share:g}' for share in shares)}"
            try:
                allocated = allocate(
                    budget,
                    shares,
                    depths,
                    self.width_step,
                    family=self.template.family,
                    stem_width=self.template.stem_width,
                    num_classes=num_classes,
                    image_shape=image_shape,
                )
            except InputError as error:
                rejected.append(Rejected(description, str(error)))
                continue
            spec = self.template_with(allocated.depths, allocated.widths)
            if spec in specs:
                rejected.append(Rejected(description, f"the same widths as {specs[spec]}"))
            specs.setdefault(spec, description)
        return Members(tuple(specs), len(points), tuple(rejected), len(rejected))

    def _grid_members(self, budget: Budget, num_classes: int, image_shape: ImageShape) -> Members:
        axes = [np.asarray(stage, dtype=np.int64) for stage in (*self.depths, *(self.widths or ()))]
        shape = tuple(len(axis) for axis in axes)
        specs: list[ArchSpec] = []
        outside: list[tuple[float, ArchSpec]] = []
        for point, inside, distance in self._costed(axes, shape, budget, num_classes, image_shape):
            specs += [self._spec_at(point, int(column)) for column in np.flatnonzero(inside)]
            nearest = np.argsort(np.where(inside, np.inf, distance), kind="stable")[:_NEAREST]
            outside += [(float(distance[i]), self._spec_at(point, int(i))) for i in nearest if not inside[i]]
        outside.sort(key=lambda item: item[0])
        rejected = tuple(
            Rejected(_describe(spec), budget.reason(cost(spec, num_classes, image_shape)))
            for _, spec in outside[:_NEAREST]
        )
        considered = math.prod(shape)
        return Members(tuple(specs), considered, rejected, considered - len(specs))

    def _costed(
        self, axes: list[np.ndarray], shape: tuple[int, ...], budget: Budget, num_classes: int, image_shape: ImageShape
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Chunks of the grid: points (2 * stages, M), whether inside (M,), largest relative distance (M,)."""
        stages = len(self.depths)
        family = get_family(self.template.family)
        for start in range(0, math.prod(shape), _CHUNK):
            flat = np.arange(start, min(start + _CHUNK, math.prod(shape)))
            point = np.stack([axis[i] for axis, i in zip(axes, np.unravel_index(flat, shape), strict=True)])
            terms = family.cost_terms(
                list(point[:stages]), list(point[stages:]), self.template.stem_width, num_classes, image_shape
            )
            costs: dict[str, Any] = {
                "params": sum(terms.stage_params) + terms.outside_params,
                "macs": sum(terms.stage_macs) + terms.outside_macs,
            }
            inside = np.broadcast_to(budget.contains(**costs), flat.shape)
            distance = np.zeros(flat.shape)
            for resource in budget.resources:
                distance = np.maximum(distance, np.abs(costs[resource] / getattr(budget, resource) - 1))
            yield point, inside, distance

    def _spec_at(self, point: np.ndarray, column: int) -> ArchSpec:
        values = [int(value) for value in point[:, column]]
        stages = len(self.depths)
        return self.template_with(values[:stages], values[stages:])


def _describe(spec: ArchSpec) -> str:
    return f"depths {'-'.join(map(str, spec.depths))}, widths {'-'.join(map(str, spec.widths))}"


def _choices(key: str, stages: Any) -> tuple[tuple[int, ...], ...]:
    """For each stage a tuple of distinct integers of at least 1."""
    try:
        choices = tuple(tuple(stage) for stage in stages)
    except TypeError:
        raise invalid(key, stages, "for each stage a list of integers, like [[1,2],[1,2],[1]]") from None
    for stage in choices:
        wrong = [value for value in stage if isinstance(value, bool) or not isinstance(value, int) or value < 1]
        if not stage or wrong or len(set(stage)) != len(stage):
            raise invalid(key, [list(stage) for stage in choices], "distinct integers of at least 1 for each stage")
    return choices
