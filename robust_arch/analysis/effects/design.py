"""The variables of a regression over architectures, and what they become when one stage changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pandas as pd

from robust_arch.analysis.claims import Sites, without_site_effects
from robust_arch.analysis.formatting import counted
from robust_arch.analysis.groups import Group
from robust_arch.analysis.reading import spec_of
from robust_arch.analysis.robust_means import RobustMeans, robust_means
from robust_arch.architectures import ArchSpec
from robust_arch.architectures.cost import cost_terms

PARAMS, MACS, SHARE = "parameters", "MACs", "last stage's share"
_PRICED = (10, (3, 32, 32))  # of the closed form; only ratios of its costs are used
_MOST_LEVELS = 8
_ALIKE = "these architectures hardly differ in it"
_LEAST_SPREAD = {PARAMS: 0.03, MACS: 0.03, SHARE: 0.005}
"""Standard deviation, at equal other costs, below which a cost hardly varies: doublings, and parts of one."""


@dataclass(frozen=True)
class Change:
    """Architectures in which one stage's depth or width is changed from one level to the next.

    Attributes:
        variable: that changes.
        step: number of the gap between levels, from 0.
        members: (n,) positions of the architectures.
        low: (n, V) variables at the lower level, the costs recomputed.
        high: (n, V) at the higher level.
    """

    variable: int
    step: int
    members: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Design:
    """A comparable architectures of one kind with V variables.

    Attributes:
        kind: family and stages, in words.
        group: the comparable rows.
        means: the robust accuracy of each architecture in percent, in the order of `names`.
        names: of the architectures.
        variables: names of the variables: stages in log2, costs in log2, the share in [0, 1].
        x: (A, V).
        levels: variable to its levels, in blocks or channels.
        costs: the variables among `x` that are costs and vary at equal other costs.
        inseparable: variable to why its effect cannot be estimated.
        changes: every change of one stage by one level.
        sites: of the runs; None for one site. Their effects are not in `means` where they can be estimated.
        predictors: further variables, in standard deviations.
        left_out: comparable runs that are in no design of the group, in words; empty without any.
    """

    kind: str
    group: Group
    means: RobustMeans
    names: tuple[str, ...]
    variables: tuple[str, ...]
    x: np.ndarray
    levels: Mapping[str, np.ndarray]
    costs: tuple[str, ...]
    inseparable: Mapping[str, str]
    changes: Sequence[Change]
    sites: Sites | None = None
    predictors: tuple[str, ...] = ()
    left_out: str = ""

    @property
    def priced(self) -> tuple[str, ...]:
        """Stages' variables that are functions of one cost with a term: the cost's term stands for theirs."""
        column = dict(zip(self.variables, self.x.T, strict=True))
        return tuple(
            name
            for name in self.levels
            if any(_left(column[name], [column[used]]) < 0.1 * float(np.std(column[name])) for used in self.costs)
        )

    @property
    def equal(self) -> tuple[str, ...]:
        """The costs in which the architectures hardly differ."""
        return tuple(name for name, why in self.inseparable.items() if why == _ALIKE)

    @property
    def y(self) -> np.ndarray:
        """(A,) robust accuracy in percent."""
        return self.means.centres.to_numpy()


def designs(group: Group, predictors: Sequence[str] = ()) -> list[Design]:
    """One design per kind of architecture in a group, the largest first; runs without costs are left out.

    predictors: columns of the rows that are variables too; runs without one of them are left out.

    Raises:
        InputError: for an architecture with depths and widths that is of no known family.
    """
    needed = ["worst_case_acc", "params", "macs", *predictors]
    known = group.rows[needed].notna().all(axis="columns")
    rows = group.rows[known].drop_duplicates("run_id")
    lost = group.rows["run_id"].nunique() - len(rows)
    left_out = f"{counted(lost, 'run')} without one of {', '.join(needed)}" if lost else ""
    kinds: dict[str, list[str]] = {}
    specs: dict[str, ArchSpec | None] = {}
    for row in rows.drop_duplicates("arch").to_dict("records"):
        spec = None if pd.isna(row["depths"]) else spec_of(row)
        name = str(row["arch"])
        specs[name] = spec
        what = "stages not recorded"
        if spec is not None:
            what = f"{len(spec.depths)} stages, stem {spec.stem_width}, {spec.settings_text}"
        kinds.setdefault(f"{row['family']}, {what}", []).append(name)
    found = []
    for kind, names in kinds.items():
        own, sites = without_site_effects(rows[rows["arch"].isin(names)])
        design = _with_predictors(_design(kind, group, own, specs), own, predictors)
        found.append(replace(design, sites=sites, left_out=left_out))
    return sorted(found, key=lambda design: -len(design.names))


def _with_predictors(design: Design, rows: pd.DataFrame, predictors: Sequence[str]) -> Design:
    """The design with the means of these columns over the runs of each architecture, in standard deviations."""
    if not predictors:
        return design
    means = rows.groupby("arch")[list(predictors)].mean().loc[list(design.names)].to_numpy(float)
    scaled = (means - means.mean(axis=0)) / np.maximum(means.std(axis=0), 1e-12)
    # costs moving along a stage do not move what was measured before training
    changes = [
        replace(each, low=np.column_stack([each.low, scaled[each.members]]),
                high=np.column_stack([each.high, scaled[each.members]]))
        for each in design.changes
    ]  # fmt: skip
    return replace(
        design, x=np.column_stack([design.x, scaled]), variables=(*design.variables, *predictors), changes=changes,
        predictors=tuple(predictors),
    )  # fmt: skip


def _design(kind: str, group: Group, rows: pd.DataFrame, all_specs: Mapping[str, ArchSpec | None]) -> Design:
    means = robust_means(rows, step=100 / group.n_test)
    names = tuple(str(name) for name in means.centres.index)
    firsts = rows.drop_duplicates("arch").set_index("arch").loc[list(names)]
    costs = {PARAMS: np.log2(firsts["params"].to_numpy(float)), MACS: np.log2(firsts["macs"].to_numpy(float))}
    specs = [spec for name in names if (spec := all_specs[name]) is not None]
    if not specs:
        return _assembled(kind, group, means, names, {}, costs, {}, [])
    stages = _stages(specs)
    price = _price(specs[0], stages)
    costs[SHARE] = price[SHARE]
    varied = {name: value for name, value in stages.items() if len(np.unique(value)) > 1}
    levels = {name: _levels(value) for name, value in varied.items()}
    changes = [each for name in varied for each in _changes(name, specs[0], stages, varied, levels[name], costs, price)]
    return _assembled(kind, group, means, names, varied, costs, levels, changes)


def _assembled(
    kind: str,
    group: Group,
    means: RobustMeans,
    names: tuple[str, ...],
    varied: Mapping[str, np.ndarray],
    costs: Mapping[str, np.ndarray],
    levels: Mapping[str, np.ndarray],
    changes: Sequence[Change],
) -> Design:
    used, inseparable = _separable(costs)
    stages = {name: np.log2(value) for name, value in varied.items()}
    for name, value in stages.items():
        others = [other for each, other in stages.items() if each != name]
        if others and _left(value, others) < 0.1 * float(np.std(value)):
            inseparable[name] = "it goes with the other stages in these architectures"
    x = np.column_stack([*stages.values(), *costs.values()])
    variables = (*stages, *costs)
    return Design(kind, group, means, names, variables, x, levels, used, inseparable, changes)


def _separable(costs: Mapping[str, np.ndarray]) -> tuple[tuple[str, ...], dict[str, str]]:
    """The costs that vary at equal other ones, and why the rest do not."""
    used: list[str] = []
    reasons: dict[str, str] = {}
    for name, value in costs.items():
        left = _left(value, [costs[each] for each in used])
        if left >= _LEAST_SPREAD[name]:
            used.append(name)
        elif used:
            reasons[name] = f"at equal {' and '.join(used)} it hardly varies in these architectures"
        else:
            reasons[name] = _ALIKE
    return tuple(used), reasons


def _left(value: np.ndarray, others: Sequence[np.ndarray]) -> float:
    """Standard deviation of what a regression on cubic functions of the others leaves of a variable."""
    powers = [(other - other.mean()) ** power for other in others for power in (1, 2, 3)]
    matrix = np.column_stack([np.ones(len(value)), *powers])
    return float(np.std(value - matrix @ np.linalg.lstsq(matrix, value, rcond=None)[0]))


def _stages(specs: Sequence[ArchSpec]) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for quantity in ("depths", "widths"):
        values = np.array([getattr(spec, quantity) for spec in specs], dtype=np.int64)
        found |= {f"{quantity[:-1]} of stage {stage + 1}": column for stage, column in enumerate(values.T)}
    return found


def _price(template: ArchSpec, stages: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """log2 of both costs, and the last stage's share of the stages' parameters."""
    split = len(stages) // 2
    values = list(stages.values())
    terms = cost_terms(template, values[:split], values[split:], *_PRICED)
    return {
        PARAMS: np.log2(np.asarray(terms.params, dtype=float)),
        MACS: np.log2(np.asarray(terms.macs, dtype=float)),
        SHARE: np.asarray(terms.last_share("params"), dtype=float),
    }


def _levels(values: np.ndarray) -> np.ndarray:
    """The distinct values; of many, some with as many architectures between each two."""
    distinct = np.unique(values)
    if len(distinct) <= _MOST_LEVELS:
        return distinct
    return np.unique(np.quantile(values, np.linspace(0, 1, _MOST_LEVELS), method="nearest"))


def _changes(
    name: str,
    template: ArchSpec,
    stages: Mapping[str, np.ndarray],
    varied: Mapping[str, np.ndarray],
    levels: np.ndarray,
    costs: Mapping[str, np.ndarray],
    price: Mapping[str, np.ndarray],
) -> list[Change]:
    """One per gap between two levels, for the architectures whose value is in it."""

    def at(level: int, members: np.ndarray) -> np.ndarray:
        own = {each: value[members] for each, value in stages.items()}
        own[name] = np.full(len(members), level)
        new = _price(template, own)
        moved = [costs[each][members] + new[each] - price[each][members] for each in costs]
        return np.column_stack([*(np.log2(own[each]) for each in varied), *moved])

    found = []
    for step, (low, high) in enumerate(pairwise(levels)):
        members = np.flatnonzero((stages[name] >= low) & (stages[name] <= high))
        position = list(varied).index(name)
        found.append(Change(position, step, members, at(int(low), members), at(int(high), members)))
    return found
