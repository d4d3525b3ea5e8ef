"""Networks around a given one: one stage at a time made wider, narrower, deeper or shallower, or all together."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from robust_arch.architectures import ArchSpec
from robust_arch.architectures.cost import cost_terms
from robust_arch.architectures.family import CostTerms
from robust_arch.errors import InputError, invalid, require_flag
from robust_arch.search.budget import Budget, Task, require_countable
from robust_arch.search.grid import MAX_VALUE, is_count, is_number

_AROUND = 4  # steps that a refilled stage may deviate from the common factor, to come inside the budget


@dataclass(frozen=True)
class Variant:
    """A variant of the base network.

    Attributes:
        description: what differs, in words.
        spec: its architecture.
        changed: positions of the stages that differ on purpose, from 0.
    """

    description: str
    spec: ArchSpec
    changed: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Variants:
    """Factors by which stages of the base network change, each factor and each stage giving one network.

    Attributes:
        widths: factors of a stage's width.
        depths: factors of a stage's depth.
        stages: counted from 1, or "last"; None for all.
        together: all these stages change at once.
        refill: where there is a budget, the other stages widen or narrow by a common factor until it is met.
    """

    widths: tuple[float, ...] = ()
    depths: tuple[float, ...] = ()
    stages: tuple[int | str, ...] | None = None
    together: bool = False
    refill: bool = False

    def __post_init__(self) -> None:
        for name in ("widths", "depths"):
            object.__setattr__(self, name, _factors(f"search.space.vary.{name}", getattr(self, name)))
        for name in ("together", "refill"):
            require_flag(f"search.space.vary.{name}", getattr(self, name))
        if not self.widths and not self.depths:
            raise invalid("search.space.vary", {"widths": None, "depths": None}, "factors of widths, of depths or both")
        if self.refill and self.together:
            raise invalid("search.space.vary.refill", True, "false with together, which leaves no stage to refill")
        if self.stages is not None:
            is_list = isinstance(self.stages, list | tuple) and len(self.stages) > 0
            if not is_list or not all(is_count(stage) or stage == "last" for stage in self.stages):
                raise invalid("search.space.vary.stages", self.stages, "stages counted from 1, or last, like [1,last]")
            object.__setattr__(self, "stages", tuple(self.stages))

    def positions(self, count: int) -> tuple[int, ...]:
        """The stages that change, counted from 0, out of `count`."""
        if self.stages is None:
            return tuple(range(count))
        numbers = [count if stage == "last" else int(stage) for stage in self.stages]
        if max(numbers) > count or len(set(numbers)) != len(numbers):
            raise invalid("search.space.vary.stages", list(self.stages), f"different stages from 1 to {count}, or last")
        return tuple(number - 1 for number in numbers)

    def variants(self, base: ArchSpec, width_step: int) -> Iterator[Variant]:
        """The base itself, then each change; widths in multiples of `width_step`, both at least one step."""
        yield Variant("arch as it is", base)
        stages = self.positions(len(base.depths))
        for changed in [stages] if self.together else [(stage,) for stage in stages]:
            numbers = "+".join(str(stage + 1) for stage in changed)
            where = f"stage {numbers}" if len(changed) == 1 else f"stages {numbers}"
            for name, step in (("widths", width_step), ("depths", 1)):
                for factor in getattr(self, name):
                    values = {"depths": list(base.depths), "widths": list(base.widths)}
                    for stage in changed:
                        values[name][stage] = _scaled(name, values[name][stage], factor, step)
                    spec = replace(base, depths=tuple(values["depths"]), widths=tuple(values["widths"]))
                    yield Variant(f"{where}, {name} x {factor:g}", spec, changed)


def _factors(key: str, factors: Any) -> tuple[float, ...]:
    factors = () if factors is None else factors
    is_list = isinstance(factors, list | tuple)
    positive = is_list and all(is_number(factor) and 0 < factor < math.inf for factor in factors)
    if not positive or len(set(factors)) != len(factors):
        raise invalid(key, list(factors) if is_list else factors, "different factors greater than 0, like [0.5,2]")
    return tuple(float(factor) for factor in factors)


def _scaled(name: str, value: int, factor: float, step: int) -> int:
    """The multiple of `step` nearest to value * factor, at least one step; halves go up."""
    if factor > MAX_VALUE / value:
        allowed = f"factors that lead to at most {MAX_VALUE:,}, not {value} x it"
        raise invalid(f"search.space.vary.{name}", factor, allowed)
    return step * max(1, math.floor(value * factor / step + 0.5))


def refilled(variant: Variant, base: ArchSpec, budget: Budget, width_step: int, task: Task) -> ArchSpec:
    """The variant with its unchanged stages widened or narrowed by one factor, so that it is inside the budget.

    Of all widths on the grid near a common factor those inside are taken whose factors differ least, then those
    nearest to the budget.

    Raises:
        InputError: if none is inside.
    """
    others = [stage for stage in range(len(base.widths)) if stage not in variant.changed]
    if not others or not budget.resources:
        return variant.spec
    require_countable(variant.spec, task)

    def completed(columns: Sequence[Any]) -> tuple[Any, ...]:
        """Widths of all stages, the unchanged ones replaced by these."""
        new = dict(zip(others, columns, strict=True))
        return tuple(new.get(stage, width) for stage, width in enumerate(variant.spec.widths))

    def totals(columns: Sequence[np.ndarray]) -> CostTerms:
        return cost_terms(base, variant.spec.depths, completed(columns), *task)

    columns = _near_a_common_factor([base.widths[stage] for stage in others], width_step, totals, budget)
    require_countable(replace(variant.spec, widths=completed([int(column.max()) for column in columns])), task)
    costs = totals(columns)
    inside = np.flatnonzero(budget.contains(costs.params, costs.macs))
    if not len(inside):
        raise InputError(f"no widths of the other stages in steps of {width_step} meet search.budget = {budget}")
    factors = np.log(np.stack([column[inside] / base.widths[s] for column, s in zip(columns, others, strict=True)]))
    resource = budget.resources[0]
    distance = np.abs(getattr(costs, resource)[inside] / getattr(budget, resource) - 1)
    best = inside[np.lexsort((distance, np.round(np.ptp(factors, axis=0), 9)))[0]]
    return replace(variant.spec, widths=completed([int(column[best]) for column in columns]))


def _near_a_common_factor(base: Sequence[int], step: int, totals: Any, budget: Budget) -> list[np.ndarray]:
    """Grid widths of some stages, one array each: all of the widest one that may be inside, the others around it."""
    resource = budget.resources[0]
    widest = int(np.argmax(base))
    top, most = step, budget.bounds(resource)[1]
    least = [np.array([step]) for _ in base]
    while getattr(totals([*least[:widest], np.array([top]), *least[widest + 1 :]]), resource)[0] <= most:
        top *= 2
        if top > MAX_VALUE:
            raise InputError(f"search.budget = {budget}: needs a stage wider than {MAX_VALUE:,}")
    anchors = np.arange(step, top + 1, step, dtype=np.int64)
    steps = np.array(list(itertools.product(range(-_AROUND, _AROUND + 1), repeat=len(base) - 1)), dtype=np.int64)
    deviations = iter(steps.reshape(-1, len(base) - 1).T)
    columns = []
    for stage, width in enumerate(base):
        if stage == widest:
            columns.append(np.repeat(anchors, len(steps)))
        else:
            nearest = np.floor(anchors * width / base[widest] / step + 0.5).astype(np.int64)
            columns.append(np.maximum(1, nearest[:, None] + next(deviations)).ravel() * step)
    return columns
