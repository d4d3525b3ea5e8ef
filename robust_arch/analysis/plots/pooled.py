"""Networks with their runs and an interval of each mean from the scatter between seeds of all of them together.

Three seeds of one network say little about its scatter: Student's interval has two degrees of freedom, and may be
twenty times as wide for one network as for another by chance. The model of the claims (`claims.seed_model`) estimates
one standard deviation for all networks of a family, once effects of seeds and sites that all networks share are taken
out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt

import numpy as np

from robust_arch.analysis.claims.seed_model import SeedModel, noisy
from robust_arch.analysis.claims.sites import fit_runs, with_sites
from robust_arch.analysis.formatting import counted
from robust_arch.analysis.groups import Group
from robust_arch.analysis.networks import Network, networks

ROBUST_ACC = "worst_case_acc"
_UPPER = 0.975
_NUMBERS, _MOST_DRAWS, _FEWEST_DRAWS = 4_000_000, 5_000, 500


@dataclass(frozen=True)
class Measurement:
    """A network's runs, and their mean with its 95% interval, in the unit of the column."""

    network: Network
    runs: tuple[float, ...]
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Pooled:
    """The networks of a group in the order of its rows, measured by one column of results.csv.

    Attributes:
        group: the comparable rows.
        networks: with the intervals of their means.
        sigma: family to the standard deviation of its runs about their networks' means; empty where no network of it
            was trained twice. The intervals of such a family are Wilson's, over test images.
        degrees: the same to the degrees of freedom of `sigma`.
        noisy: networks whose runs scatter more than those of the others, by more than chance.
    """

    group: Group
    networks: tuple[Measurement, ...]
    sigma: Mapping[str, float] = field(default_factory=dict)
    degrees: Mapping[str, int] = field(default_factory=dict)
    noisy: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Measurement]:
        return iter(self.networks)

    def __len__(self) -> int:
        return len(self.networks)

    @property
    def half_width(self) -> float:
        """Half the width of the intervals, the median."""
        return float(np.median([(each.high - each.low) / 2 for each in self]))

    @property
    def span(self) -> float:
        """The largest mean minus the smallest."""
        means = [each.mean for each in self]
        return max(means) - min(means)

    @property
    def seeds(self) -> str:
        """Runs per network, like "3 seeds" or "1 to 3 seeds"."""
        counts = sorted({len(each.runs) for each in self})
        return counted(counts[0], "seed") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"

    @property
    def interval(self) -> str:
        """The kind of interval in few words."""
        if not self.sigma:
            return "Wilson 95% intervals"
        spread = " to ".join(f"{value:.1f}" for value in sorted({min(self.sigma.values()), max(self.sigma.values())}))
        return f"95% intervals from a pooled sd of {spread} points"

    def sentences(self, *, bars: bool = True) -> str:
        """What the bars and dots are, or how wide the intervals are if no `bars` are drawn."""
        drawn = "Bars: " if bars else f"No bars are drawn: half the width of the {'' if self.sigma else 'Wilson '}"
        width = "" if bars else f" is {self.half_width:.1f} points in the median"
        if not self.sigma:
            kind = "Wilson 95% intervals" if bars else "95% intervals"
            return f"{drawn}{kind} over test images{width}; with one seed per network, seed noise is not in them."
        several = len(self.sigma) > 1
        parts = [
            f"{value:.2f} points{f' in {family}' if several else ''} ({self.degrees[family]} degrees of freedom)"
            for family, value in self.sigma.items()
        ]
        text = (
            f"{'Small dots: seeds. ' if bars else ''}{drawn}95% intervals of the means{width}, from one standard "
            f"deviation between seeds for all networks{' of a family' if several else ''}: {', '.join(parts)}, without "
            "the effects that a seed has on all of them alike."
        )
        if self.noisy:
            text += f" They are too narrow for {', '.join(self.noisy)}, whose runs scatter more than those of the rest."
        return text

    def by_chance(self) -> float:
        """The span that as many means would exceed in 1 of 20 studies if all networks were equal."""
        counts = np.array([len(each.runs) for each in self], dtype=float)
        generator = np.random.default_rng(0)
        draws = max(_FEWEST_DRAWS, min(_MOST_DRAWS, _NUMBERS // len(counts)))
        spans = np.ptp(generator.standard_normal((draws, len(counts))) / np.sqrt(counts), axis=1)
        if not self.sigma:
            mean = float(np.mean([each.mean for each in self])) / 100
            return 100 * sqrt(mean * (1 - mean) / self.group.n_test) * float(np.quantile(spans, 0.95))
        degrees = sum(self.degrees.values())
        spans /= np.sqrt(generator.chisquare(degrees, draws) / degrees)
        variance = sum(self.degrees[family] * sigma**2 for family, sigma in self.sigma.items()) / degrees
        return sqrt(variance) * float(np.quantile(spans, 0.95))


def pooled(group: Group, column: str = ROBUST_ACC, also: Sequence[str] = ()) -> Pooled:
    """The networks of a group, measured by a column; those that lack it, or one of `also`, are left out.

    Raises:
        InputError: if nothing is left.
    """
    from scipy.special import stdtrit

    columns = list(dict.fromkeys((ROBUST_ACC, column, *also)))
    found = networks(group, columns)
    percent = column == "stability" or column.endswith("_acc")
    rows = group.rows[group.rows[columns].notna().all(axis="columns")]
    # the model is of worst-case accuracies, whose noise is at least that of rounding to whole images
    rows = rows.assign(worst_case_acc=rows[column], n_test=rows["n_test"] if percent else np.inf)
    measured: dict[str, Measurement] = {}
    sigma, degrees, scattered = {}, {}, []
    by_arch = {network.arch: network for network in found}
    for family, own in rows.groupby("family", sort=False):
        table, model = fit_runs(with_sites(own))
        critical = float(stdtrit(model.degrees, _UPPER)) if model.sigma is not None else 0.0
        if model.sigma is not None:
            sigma[str(family)], degrees[str(family)] = model.sigma, model.degrees
            scattered += [str(table.index[place]) for place in noisy(model, 100 / group.n_test if percent else 0.0)]
        runs = own.groupby("arch")[column].agg(tuple)
        for place, name in enumerate(table.index):
            network = by_arch[str(name)]
            measured[str(name)] = _measured(network, column, runs[name], model, place, critical, percent=percent)
    return Pooled(group, tuple(measured[network.arch] for network in found), sigma, degrees, tuple(scattered))


def _measured(
    network: Network, column: str, runs: tuple[float, ...], model: SeedModel, place: int, critical: float, *,
    percent: bool,
) -> Measurement:  # fmt: skip
    """One network of a fitted model."""
    mean = float(model.values[place])
    if model.sigma is None:
        alone = network.numbers[column]
        return Measurement(network, runs, mean, alone.low, alone.high)
    half = critical * model.sigma / sqrt(float(model.counts[place]))
    low, high = mean - half, mean + half
    return Measurement(network, runs, mean, max(low, 0.0) if percent else low, min(high, 100.0) if percent else high)
