"""What the claims are computed from: one value per architecture, its cost, and the noise between seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from robust_arch.analysis.claims.seed_model import SeedModel, noisy, unequal
from robust_arch.analysis.claims.sites import Sites, examine_sites, fit_runs, with_sites
from robust_arch.analysis.reading import spec_of, stage_costs
from robust_arch.architectures import ArchSpec
from robust_arch.errors import invalid

RESOURCES = {"params": "parameters", "macs": "multiply-accumulates"}
TOLERANCE = 0.02
"""Tolerance of a budget: costs within a factor of (1 + tolerance) / (1 - tolerance) are equal."""


@dataclass(frozen=True)
class Measured:
    """Worst-case accuracies of A comparable architectures of one kind, on the same test images.

    Attributes:
        names: of the architectures, (A,).
        specs: of the architectures, (A,); none where depths and widths are not recorded.
        model: the value of each in percent, and how well it is known.
        costs: resource to (A,), NaN where it is not recorded.
        stages: resource to (A, stages), without stem and head.
        noisy: as in `Examined`.
        unequal: as in `Examined`.
        sites: as in `Examined`.
    """

    names: tuple[str, ...]
    specs: tuple[ArchSpec, ...]
    model: SeedModel
    costs: Mapping[str, np.ndarray]
    stages: Mapping[str, np.ndarray]
    noisy: Mapping[str, float] = field(default_factory=dict)
    unequal: bool = False
    sites: Sites | None = None

    def more_expensive(self, resource: str) -> np.ndarray:
        """(A, A): whether the column's architecture costs more than the row's."""
        cost = self.costs[resource]
        return above(cost[None, :], cost[:, None])

    def equal(self, resource: str) -> np.ndarray:
        """(A, A): whether two architectures cost the same."""
        known = np.isfinite(self.costs[resource])
        return np.asarray(known[:, None] & known & ~self.more_expensive(resource) & ~self.more_expensive(resource).T)

    def unless_unrecorded(self, resource: str, why: str) -> str:
        """The reason why nothing can be compared: `why`, unless no cost is recorded."""
        return why if np.isfinite(self.costs[resource]).any() else f"No run has its {RESOURCES[resource]} recorded."

    def windows(self, resource: str) -> list[np.ndarray]:
        """Disjoint sets of at least two architectures that cost the same, the largest first."""
        cost = self.costs[resource]
        left = np.argsort(cost, kind="stable")[: np.isfinite(cost).sum()]
        found = []
        while len(left):
            ends = np.searchsorted(cost[left], cost[left] * (1 + TOLERANCE) / (1 - TOLERANCE), side="right")
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
    """Each kind of architecture in comparable rows of results.csv, the kind with most architectures first.

    A kind is a family with its stem width and other settings. Rows of equal architecture, seed and site are averaged.

    Raises:
        InputError: for an architecture of no known family, or a name of two different ones.
    """
    unstaged = rows["depths"].isna() & rows["widths"].isna()
    rows, named = rows[~unstaged], rows[unstaged]
    specs: dict[str, ArchSpec] = {}
    for row in rows.drop_duplicates(["arch", "family", "depths", "widths"]).to_dict("records"):
        name, spec = str(row["arch"]), spec_of(row)
        if specs.setdefault(name, spec) != spec:
            raise invalid("arch", name, f"a name of one network, and not of both {specs[name]} and {spec}")
    kinds: dict[str, list[str]] = {}
    for name, spec in specs.items():
        kinds.setdefault(f"{spec.family}, stem {spec.stem_width}, {spec.settings_text}", []).append(name)
    ordered = sorted(kinds.items(), key=lambda item: -len(item[1]))
    found = {kind: _measured(rows[rows["arch"].isin(names)], specs) for kind, names in ordered}
    by_family = {f"{family}, stages not recorded": _measured(own, {}) for family, own in named.groupby("family")}
    return found | by_family


def _measured(rows: pd.DataFrame, specs: Mapping[str, ArchSpec]) -> Measured:
    table, model = fit_runs(with_sites(rows))
    step = 100 / float(rows["n_test"].iloc[0])
    firsts = rows.drop_duplicates("arch").set_index("arch").loc[table.index]
    own = tuple(specs[str(name)] for name in table.index) if specs else ()
    return Measured(
        names=tuple(str(name) for name in table.index),
        specs=own,
        model=model,
        costs={resource: firsts[resource].to_numpy(dtype=float) for resource in RESOURCES},
        stages={resource: np.array([stage_costs(spec, resource) for spec in own]) for resource in RESOURCES},
        noisy={str(table.index[place]): model.deviation(place) for place in noisy(model, step)},
        unequal=unequal(model, step),
        sites=examine_sites(table, model),
    )
