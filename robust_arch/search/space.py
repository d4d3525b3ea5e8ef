"""Which architectures a study considers: a grid, divisions of the budget, changes of one network, or a list."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from robust_arch.architectures import ArchSpec, ImageShape, numbers_text
from robust_arch.architectures.cost import cost_terms
from robust_arch.errors import InputError, invalid
from robust_arch.search.allocation import allocate, check_shares
from robust_arch.search.budget import Budget, Limits, check_last_share, require_countable
from robust_arch.search.candidates import Candidates, Rejected, Specs, spec_at
from robust_arch.search.grid import Grid, Tie, check_value, is_count, stage_choices
from robust_arch.search.variants import Variants, refilled

_CHUNK = 250_000  # grid points whose cost is computed at once: some 50 MB
_NEAREST = 20  # rejected points that are kept, to show how the limits were missed
_MAX_DIVISIONS = 100_000

Point = tuple[str, ArchSpec | InputError]
"""A point's description, with its architecture or the reason why it has none."""


@dataclass(frozen=True, kw_only=True)
class Space:
    """Choices for each stage, of which one of widths, shares, architectures and vary is set.

    Attributes:
        template: family and everything that is not depth or width.
        depths: the depths to try per stage, the template's by default.
        widths: the widths to try per stage.
        shares: divisions of the budget over the stages, from which widths in multiples of `width_step` follow;
            {parts: n} for all divisions into n equal parts.
        architectures: single architectures, each with its depths and widths.
        vary: changes of the template.
        width_step: of widths that follow from shares or vary, and of ranges that name no step.
        tie: stages whose choices move together.
        last_share: bounds of the last stage's share.
    """

    template: ArchSpec
    depths: tuple[tuple[int, ...], ...] | None = None
    widths: tuple[tuple[int, ...], ...] | None = None
    shares: tuple[tuple[float, ...], ...] | None = None
    architectures: tuple[ArchSpec, ...] | None = None
    vary: Variants | None = None
    width_step: int = 8
    tie: Tie = field(default_factory=Tie)
    last_share: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        check_value("search.space.width_step", self.width_step)
        if self.last_share is not None:
            object.__setattr__(self, "last_share", check_last_share(self.last_share))
        if self.vary is not None:
            self._check_vary(self.vary)
            return
        if self.architectures is not None:
            self._check_architectures(self.architectures)
            return
        if (self.widths is None) == (self.shares is None):
            raise InputError(
                "search.space: set either widths (choices per stage) or shares (divisions of the budget), or "
                "architectures, or vary"
            )
        self._check_choices()
        if self.shares is not None:
            object.__setattr__(self, "shares", _divisions(self.shares, len(self._depths)))
        first = [stage[0] for stage in self._depths]
        replace(self.template, depths=tuple(first), widths=tuple(stage[0] for stage in self.widths or self._depths))

    def _check_vary(self, vary: Variants) -> None:
        self._require_alone("vary", self.depths, self.widths, self.shares, self.architectures)
        if self.tie != Tie():
            raise InputError("search.space.tie: ties choices of depths and widths; vary has its own key, together")
        vary.positions(len(self.template.depths))
        for name in ("depths", "widths"):
            check_value(f"arch.{name}", max(getattr(self.template, name)))

    @staticmethod
    def _require_alone(name: str, *choices: object) -> None:
        """Raise InputError where another choice is set beside `name`, which stands for all of them."""
        if any(choice is not None for choice in choices):
            raise InputError(f"search.space.{name}: set it without depths, widths and shares, or them without it")

    def _check_architectures(self, listed: Any) -> None:
        key = "search.space.architectures"
        self._require_alone("architectures", self.depths, self.widths, self.shares)
        if self.tie != Tie():
            raise InputError("search.space.tie: ties choices of depths and widths; architectures has none")
        if not isinstance(listed, list | tuple) or not listed:
            raise invalid(key, listed, "a list like [{depths: [2, 2, 2], widths: [16, 32, 64]}]")
        specs = []
        for each in listed:
            if isinstance(each, ArchSpec):
                specs.append(each)
                continue
            if not isinstance(each, Mapping) or set(each) != {"depths", "widths"}:
                raise invalid(key, each, "depths and widths, like {depths: [2, 2, 2], widths: [16, 32, 64]}")
            specs.append(replace(self.template, **each))
            for name in ("depths", "widths"):
                check_value(key, max(getattr(specs[-1], name)))
        object.__setattr__(self, "architectures", tuple(specs))

    def _check_choices(self) -> None:
        if self.depths is None:
            if self.shares is None:
                raise invalid("search.space.depths", None, "for each stage a list of integers, like [[1,2],[1,2],[1]]")
            object.__setattr__(self, "depths", tuple((depth,) for depth in self.template.depths))
        object.__setattr__(self, "depths", stage_choices("search.space.depths", self.depths))
        self.tie.dimensions("depths", self._depths)
        if self.widths is None:
            if self.tie.widths:
                raise invalid("search.space.tie.widths", self.tie.widths, "nothing where shares decide the widths")
            return
        object.__setattr__(self, "widths", stage_choices("search.space.widths", self.widths, self.width_step))
        if len(self.widths) != len(self._depths):
            raise invalid("search.space.widths", self.widths, f"as many stages as depths, {len(self._depths)}")
        self.tie.dimensions("widths", self.widths)

    @property
    def _depths(self) -> tuple[tuple[int, ...], ...]:
        return self.depths or ()

    def members(self, budget: Budget, num_classes: int, image_shape: ImageShape) -> Candidates:
        """What of the space is inside the budget, and inside last_share, for this task."""
        limits = Limits(budget, (num_classes, image_shape), self.last_share)
        if self.vary is not None:
            return self._listed_members(self._variants(self.vary, limits), limits)
        if self.architectures is not None:
            return self._listed_members(((_describe(spec), spec) for spec in self.architectures), limits)
        if self.shares is not None:
            return self._listed_members(self._allocations(self.shares, limits), limits)
        return self._grid_members(limits)

    def _listed_members(self, points: Iterator[Point], limits: Limits) -> Candidates:
        """The candidates of a space whose points are listed one by one; equal architectures count once."""
        specs: dict[ArchSpec, str] = {}
        rejected = []
        for description, spec in points:
            if isinstance(spec, InputError):
                rejected.append(Rejected(description, str(spec)))
                continue
            require_countable(spec, limits.task)
            same = f"the same {'widths' if self.shares else 'network'} as {specs[spec]}" if spec in specs else ""
            if reason := same or limits.reason(spec):
                rejected.append(Rejected(description, reason))
            else:
                specs[spec] = description
        considered = len(specs) + len(rejected)
        return Candidates(Specs.of(self.template, list(specs)), considered, tuple(rejected), len(rejected))

    def _variants(self, vary: Variants, limits: Limits) -> Iterator[Point]:
        for variant in vary.variants(self.template, self.width_step):
            spec: ArchSpec | InputError = variant.spec
            if vary.refill and variant.changed:
                try:
                    spec = refilled(variant, self.template, limits.budget, self.width_step, limits.task)
                except InputError as error:
                    spec = error
            shown = spec if isinstance(spec, ArchSpec) else variant.spec
            yield f"{variant.description}: {_describe(shown)}", spec

    def _allocations(self, shares: Sequence[Sequence[float]], limits: Limits) -> Iterator[Point]:
        grid = Grid(self._depths, tuple(self.tie.dimensions("depths", self._depths)))
        template = self.template
        num_classes, image_shape = limits.task
        task: dict[str, Any] = {"num_classes": num_classes, "image_shape": image_shape, "template": template}
        for depths, division in itertools.product(grid.points(0, len(grid)).T.tolist(), shares):
            description = f"depths {numbers_text(depths)}, shares {numbers_text(division)}"
            try:
                allocated = allocate(limits.budget, division, depths, self.width_step, **task)
            except InputError as error:
                yield description, error
            else:
                yield description, allocated

    def _grid_members(self, limits: Limits) -> Candidates:
        stages, widths = len(self._depths), self.widths or ()
        leaders = self.tie.dimensions("depths", self._depths)
        leaders += [stages + leader for leader in self.tie.dimensions("widths", widths)]
        grid = Grid((*self._depths, *widths), tuple(leaders))
        require_countable(spec_at(self.template, np.array([max(values) for values in grid.lists])), limits.task)
        inside_points = []
        outside: list[tuple[float, tuple[int, ...]]] = []
        for start in range(0, len(grid), _CHUNK):
            points = grid.points(start, min(start + _CHUNK, len(grid)))
            costs = cost_terms(self.template, list(points[:stages]), list(points[stages:]), *limits.task)
            inside, miss = limits.judge(costs)
            inside_points.append(points[:, inside].T.astype(np.int32))
            nearest = np.flatnonzero(~inside)
            if len(nearest) > _NEAREST:  # ties to the earlier point, as a stable sort of all would have it
                bound = np.partition(miss[nearest], _NEAREST - 1)[_NEAREST - 1]
                nearest = nearest[miss[nearest] <= bound]
            nearest = nearest[np.argsort(miss[nearest], kind="stable")][:_NEAREST]
            outside += [(float(miss[i]), tuple(points[:, i].tolist())) for i in nearest]
            outside = sorted(outside, key=lambda item: item[0])[:_NEAREST]
        specs = Specs(self.template, np.concatenate(inside_points))
        left_out = [spec_at(self.template, np.asarray(point)) for _, point in outside]
        rejected = tuple(Rejected(_describe(spec), limits.reason(spec)) for spec in left_out)
        return Candidates(specs, len(grid), rejected, len(grid) - len(specs))


def _describe(spec: ArchSpec) -> str:
    return f"depths {spec.depths_text}, widths {spec.widths_text}"


def _divisions(shares: Any, stages: int) -> tuple[tuple[float, ...], ...]:
    """Divisions of a budget: those of a list, or with {parts: n} all into n equal parts, at least one per stage."""
    if isinstance(shares, Mapping):
        parts: Any = shares.get("parts")
        if set(shares) != {"parts"} or not is_count(parts) or parts < stages:
            raise invalid("search.space.shares", dict(shares), f"{{parts: n}} with an integer of at least {stages}")
        if (count := math.comb(parts - 1, stages - 1)) > _MAX_DIVISIONS:
            raise invalid("search.space.shares", dict(shares), f"at most {_MAX_DIVISIONS:,} divisions, not {count:,}")
        cuts = itertools.combinations(range(1, parts), stages - 1)
        return tuple(tuple((high - low) / parts for low, high in itertools.pairwise((0, *cut, parts))) for cut in cuts)
    is_list = isinstance(shares, list | tuple) and len(shares) > 0
    if not is_list or not all(isinstance(share, list | tuple) for share in shares):
        raise invalid("search.space.shares", shares, "a list of divisions, like [[0.2,0.3,0.5]], or {parts: n}")
    return tuple(check_shares(share, stages, "search.space.shares") for share in shares)
