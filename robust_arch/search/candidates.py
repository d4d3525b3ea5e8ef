"""The architectures of a space that a plan may hold, and those that were left out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np

from robust_arch.architectures import ArchSpec, CustomArch
from robust_arch.errors import InputError

MAX_RUNS = 100_000  # of one plan


class Specs(Sequence[ArchSpec]):
    """Many architectures as an array (M, 2 * stages) of depths, then widths; each spec is made on access."""

    def __init__(self, template: ArchSpec, points: np.ndarray) -> None:
        self.template, self.points = template, points

    @classmethod
    def of(cls, template: ArchSpec, specs: Sequence[ArchSpec]) -> "Specs":
        """From a list of architectures."""
        rows = [[*spec.depths, *spec.widths] for spec in specs]
        return cls(template, np.array(rows, dtype=np.int32).reshape(len(rows), 2 * len(template.depths)))

    def __len__(self) -> int:
        return len(self.points)

    @overload
    def __getitem__(self, index: int) -> ArchSpec: ...
    @overload
    def __getitem__(self, index: slice) -> "Specs": ...
    def __getitem__(self, index: int | slice) -> "ArchSpec | Specs":
        if isinstance(index, slice):
            return Specs(self.template, self.points[index])
        return spec_at(self.template, self.points[index])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self)} architectures of family {self.template.family}>"


def spec_at(template: ArchSpec, point: np.ndarray) -> ArchSpec:
    """The template with the depths and widths of a point, (2 * stages,)."""
    values = [int(value) for value in point]
    stages = len(values) // 2
    return replace(template, depths=tuple(values[:stages]), widths=tuple(values[stages:]))


@dataclass(frozen=True)
class Rejected:
    """A point of the space that is not in the plan, with the reason."""

    description: str
    reason: str


@dataclass(frozen=True)
class Candidates:
    """The architectures of a space inside its limits, and what was left out.

    Attributes:
        specs: the architectures; of a network of the user's own itself.
        considered: number of points of the space.
        rejected: the nearest of those outside the limits.
        rejected_count: number of all points outside.
        not_sampled: number of architectures inside that search.sample left out.
    """

    specs: Specs | Sequence[CustomArch]
    considered: int
    rejected: tuple[Rejected, ...]
    rejected_count: int
    not_sampled: int = 0

    def require_plannable(self, seeds: int) -> None:
        """Raise InputError where there are more runs than a plan can hold. seeds: runs per architecture."""
        if (runs := len(self.specs) * seeds) > MAX_RUNS:
            raise InputError(
                f"search.space: {runs:,} runs ({len(self.specs):,} architectures, {seeds} seeds each), at most "
                f"{MAX_RUNS:,} in one plan; search.sample=<N> plans N architectures that fill the space, and a smaller "
                "search.budget.tolerance leaves fewer inside"
            )
