"""Sites, on which runs were trained: whether a machine, precision or version moves robust accuracy by itself.

The effect of a site is a fixed effect beside that of the architecture, so it can be estimated only where architectures
link the sites: some were trained at several of them. Elsewhere a difference between two architectures may be one
between two machines.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import pandas as pd

from robust_arch.analysis.bounded import Bounded
from robust_arch.analysis.claims.seed_model import SeedModel, fit
from robust_arch.analysis.formatting import counted
from robust_arch.runs import SITE_COLUMNS

SITE = "site"
"""The column of a run's site that `with_sites` adds."""
_WORDS = {"hardware": "", "precision": "precision ", "version": "torch "}
_MOST_NAMED = 4


@dataclass(frozen=True)
class Sites:
    """The sites of comparable runs.

    Attributes:
        runs: site to its number of runs, most first.
        crossed: architectures that were trained at more than one site.
        groups: sets of sites that share no architecture with one another; 1 where all are linked.
        pair: the two sites that differ most relative to the error; None where no effect can be tested.
        effect: the first of the pair minus the second in points, with an interval that holds for all pairs together.
    """

    runs: dict[str, int]
    crossed: int
    groups: int
    pair: tuple[str, str] | None
    effect: Bounded | None

    @property
    def sentence(self) -> str:
        """What a reader of the comparisons must know."""
        named = [f"{name}: {counted(runs, 'run')}" for name, runs in list(self.runs.items())[:_MOST_NAMED]]
        more = f"; and {len(self.runs) - _MOST_NAMED} more" if len(self.runs) > _MOST_NAMED else ""
        where = f"{len(self.runs)} sites ({'; '.join(named)}{more})"
        if not self.crossed:
            return (
                f"Warning: architectures and machines are not crossed: each architecture was trained at only one of "
                f"{where}, so a difference between architectures may be a difference between sites."
            )
        linked = f"{counted(self.crossed, 'architecture')} {'was' if self.crossed == 1 else 'were'} trained at several"
        if self.pair is None or self.effect is None:
            return (
                f"Warning: the runs are from {where}; {linked}, with too few runs to estimate an effect of the site, "
                "so a difference between architectures may be a difference between sites."
            )
        first, second = self.pair
        value = f"{self.effect.value:+.2f} points [{self.effect.low:+.2f}, {self.effect.high:+.2f}]"
        text = f"the runs are from {where}, of which {linked}: {first} minus {second} is {value}"
        if self.groups == 1:
            return f"{text[0].upper()}{text[1:]}; effects of sites are taken out of every comparison."
        return (
            f"Warning: {text}, which is taken out, but {self.groups} groups of sites share no architecture, so a "
            "difference between architectures of two groups may be a difference between sites."
        )


def with_sites(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with a column SITE, missing where all are, as far as recorded, from one site."""
    known = [name for name in SITE_COLUMNS if name in rows and len(rows[name].dropna().unique()) > 1]
    if not known:
        return rows.assign(**{SITE: None})
    parts = [(_WORDS[name] + rows[name].astype(str)).where(rows[name].notna(), "") for name in known]
    named = pd.concat(parts, axis="columns").apply(lambda row: ", ".join(filter(None, row)), axis="columns")
    return rows.assign(**{SITE: named.where(named != "", "unrecorded")})


def fit_runs(rows: pd.DataFrame) -> tuple[pd.DataFrame, SeedModel]:
    """Accuracies by architecture and, per column, seed and site; and their model.

    Args:
        rows: comparable, with the column SITE. A run without a recorded seed has a column of its own; runs of the same
            architecture, seed and site are averaged.
    """
    by = "arch" if rows[SITE].isna().all() else ["arch", SITE]
    own = -1 - rows[rows["seed"].isna()].groupby(by).cumcount()
    numbered = rows.assign(
        seed=rows["seed"].fillna(own),
        worst_case_acc=rows["worst_case_acc"].astype(float),
        **{SITE: rows[SITE].fillna("")},
    )
    table = numbered.pivot_table("worst_case_acc", "arch", ["seed", SITE])
    seeds, places = (table.columns.get_level_values(level).to_numpy() for level in (0, 1))
    step = 100 / float(rows["n_test"].iloc[0])
    return table, fit(
        table.to_numpy(),
        step,
        by_seed=bool(rows["seed"].notna().all()),
        seeds=seeds,
        sites=places if len(set(places)) > 1 else None,
    )


def examine_sites(table: pd.DataFrame, model: SeedModel) -> Sites | None:
    """The sites behind a table of `fit_runs`, and their largest difference; None for runs of one site."""
    from scipy.sparse.csgraph import connected_components
    from scipy.special import stdtrit

    there = table.notna().T.groupby(level=SITE).sum().T
    if there.shape[1] < 2:
        return None
    names, held = list(there.columns), there.to_numpy()
    groups, member = connected_components(held.T @ held > 0, directed=False)
    runs = dict(sorted(zip(names, map(int, held.sum(axis=0)), strict=True), key=lambda item: -item[1]))
    crossed = int(((held > 0).sum(axis=1) > 1).sum())
    pairs = [(one, two) for one, two in combinations(range(len(names)), 2) if member[one] == member[two]]
    if model.sites is None or model.sigma is None or not pairs:
        return Sites(runs, crossed, int(groups), None, None)
    effects, covariance = model.sites.effects, model.sites.covariance
    errors = {
        (one, two): model.sigma * math.sqrt(covariance[one, one] + covariance[two, two] - 2 * covariance[one, two])
        for one, two in pairs
    }
    one, two = max(pairs, key=lambda pair: abs(effects[pair[0]] - effects[pair[1]]) / errors[pair])
    if effects[one] < effects[two]:
        one, two = two, one
    value = float(effects[one] - effects[two])
    # Bonferroni, since the pair was chosen
    half = float(stdtrit(model.degrees, 1 - 0.025 / len(pairs))) * errors[min(one, two), max(one, two)]
    return Sites(runs, crossed, int(groups), (names[one], names[two]), Bounded(value, value - half, value + half))


def without_site_effects(rows: pd.DataFrame) -> tuple[pd.DataFrame, Sites | None]:
    """Comparable rows whose worst-case accuracies are less the effects of their sites, where these can be estimated."""
    placed = with_sites(rows)
    table, model = fit_runs(placed)
    found = examine_sites(table, model)
    if model.sites is None:
        return rows, found
    effects = dict(zip(model.sites.names, model.sites.effects, strict=True))
    return rows.assign(worst_case_acc=rows["worst_case_acc"] - placed[SITE].map(effects)), found
