"""What the claims are computed from: one mean an architecture, its cost, and the noise between seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from robust_arch.analysis.reading import spec_of, stage_costs
from robust_arch.architectures import ArchSpec

RESOURCES = ("params", "macs")
TOLERANCE = 0.02
"""Of a budget: costs within (1 + tolerance) / (1 - tolerance) of each other are equal."""

_DRAWS = 10_000


@dataclass(frozen=True)
class Measured:
    """Worst-case accuracies of A architectures of one kind that may be compared, in percent, on the same test images.

    means: (A,) over seeds. counts: (A,) runs of each. sigma: standard deviation of one run about its architecture's
    mean, pooled, on `degrees` of freedom; None where no architecture was trained twice. unlike: the architecture whose
    runs scatter far more than the others', with their standard deviation, if there is one. costs: resource to (A,).
    stages: resource to (A, stages), without stem and head.
    """

    names: tuple[str, ...]
    specs: tuple[ArchSpec, ...]
    means: np.ndarray
    counts: np.ndarray
    sigma: float | None
    degrees: int
    unlike: tuple[str, float] | None
    costs: dict[str, np.ndarray]
    stages: dict[str, np.ndarray]

    @property
    def seeds(self) -> str:
        """Runs of an architecture, as "3" or "1 to 3"."""
        low, high = int(self.counts.min()), int(self.counts.max())
        return str(low) if low == high else f"{low} to {high}"

    def dearer(self, resource: str) -> np.ndarray:
        """(A, A): whether the column's architecture costs more than the row's."""
        cost = self.costs[resource]
        return above(cost[None, :], cost[:, None])

    def windows(self, resource: str) -> list[np.ndarray]:
        """Disjoint sets of at least two architectures that cost the same, the largest first."""
        left = np.argsort(self.costs[resource], kind="stable")
        found = []
        while len(left):
            cost = self.costs[resource][left]
            ends = np.searchsorted(cost, cost * (1 + TOLERANCE) / (1 - TOLERANCE), side="right")
            start = int(np.argmax(ends - np.arange(len(left))))
            if ends[start] - start < 2:
                break
            found.append(left[start : ends[start]])
            left = np.delete(left, np.s_[start : ends[start]])
        return found


def above(cost: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Whether `cost` exceeds `other` by more than the tolerance of a budget."""
    return np.asarray(cost * (1 - TOLERANCE) > other * (1 + TOLERANCE))


def measured(rows: pd.DataFrame) -> dict[str, Measured]:
    """Kind to what was measured of it, from comparable rows of results.csv, the kind of most architectures first.

    A kind is a family with its stem width, activation and dropout. Rows of one architecture and seed count as their
    mean.

    Raises:
        InputError: for an architecture of no known family.
    """
    specs = {str(row["arch"]): spec_of(row) for row in rows.drop_duplicates("arch").to_dict("records")}
    kinds: dict[str, list[str]] = {}
    for name, spec in specs.items():
        kinds.setdefault(_kind(spec), []).append(name)
    ordered = sorted(kinds.items(), key=lambda item: -len(item[1]))
    return {kind: _measured(rows[rows["arch"].isin(names)], specs) for kind, names in ordered}


def _measured(rows: pd.DataFrame, specs: Mapping[str, ArchSpec]) -> Measured:
    # a run without a recorded seed, from elsewhere, is one of its own
    table = rows.assign(seed=rows["seed"].fillna(-1)).pivot_table("worst_case_acc", "arch", "seed")
    firsts = rows.drop_duplicates("arch").set_index("arch").loc[table.index]
    own = tuple(specs[str(name)] for name in table.index)
    values = table.to_numpy()
    sigma, degrees = noise(values)
    names = tuple(str(name) for name in table.index)
    worst = uneven(values)
    return Measured(
        names=names,
        specs=own,
        means=np.nanmean(values, axis=1),
        counts=np.sum(~np.isnan(values), axis=1),
        sigma=sigma,
        degrees=degrees,
        unlike=None if worst is None else (names[worst], float(np.nanstd(values[worst], ddof=1))),
        costs={resource: firsts[resource].to_numpy(dtype=float) for resource in RESOURCES},
        stages={resource: np.array([stage_costs(spec, resource) for spec in own]) for resource in RESOURCES},
    )


def _kind(spec: ArchSpec) -> str:
    parts = [spec.family, f"stem {spec.stem_width}", spec.activation, f"dropout {spec.dropout}" if spec.dropout else ""]
    return ", ".join(part for part in parts if part)


def noise(values: np.ndarray) -> tuple[float | None, int]:
    """Standard deviation of a run and its degrees of freedom, from (A, S) accuracies with NaN where there is no run.

    Where every architecture has every seed, what a seed does to all of them alike is taken out (two-way layout without
    interaction); else runs scatter about their architecture's mean. None on 0 degrees if no architecture has two runs.
    """
    residuals = values - np.nanmean(values, axis=1, keepdims=True)
    architectures, seeds = values.shape
    if np.isnan(values).any() or architectures == 1:
        degrees = int(np.sum(~np.isnan(values))) - architectures
    else:
        residuals = residuals - residuals.mean(axis=0)
        degrees = (architectures - 1) * (seeds - 1)
    return (float(np.sqrt(np.nansum(residuals**2) / degrees)), degrees) if degrees else (None, 0)


def uneven(values: np.ndarray) -> int | None:
    """The architecture whose variance is too large a part of all to be chance at the 1% level (Cochran 1941), if any.

    values: (A, S) accuracies with NaN where there is no run. The null distribution is drawn at random.
    """
    degrees = np.sum(~np.isnan(values), axis=1) - 1
    repeated = np.flatnonzero(degrees > 0)
    if len(repeated) < 2:
        return None
    variances = np.nanvar(values[repeated], axis=1, ddof=1)
    drawn = np.random.default_rng(0).chisquare(degrees[repeated], (_DRAWS, len(repeated))) / degrees[repeated]
    largest = np.quantile(drawn.max(axis=1) / drawn.sum(axis=1), 0.99)
    worst = int(np.argmax(variances))
    return int(repeated[worst]) if variances[worst] > largest * variances.sum() else None
