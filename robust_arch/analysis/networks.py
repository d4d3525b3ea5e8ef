"""The architectures of a group: what each one is, what it costs, and its means over runs with intervals."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from statistics import mode, stdev
from typing import Any, Literal

import pandas as pd

from robust_arch.analysis.groups import Group
from robust_arch.analysis.reading import spec_of, stage_shares
from robust_arch.architectures import ArchSpec
from robust_arch.common.statistics import accuracy_interval, mean_interval
from robust_arch.errors import InputError, invalid

Quantity = Literal["widths", "depths"]


@dataclass(frozen=True)
class Estimate:
    """A mean over runs with the bounds of its 95% interval.

    For a percentage of test images the interval is that of `statistics.accuracy_interval`. For another number it is
    Student's t; from one run both bounds equal the mean.

    Attributes:
        mean: over the runs.
        low: lower bound.
        high: upper bound.
        runs: number of runs.
        sd: standard deviation over the runs; None for one.
    """

    mean: float
    low: float
    high: float
    runs: int
    sd: float | None


@dataclass(frozen=True)
class Network:
    """An architecture with its cost and its recorded numbers.

    Attributes:
        row: the first of its rows in results.csv, which describes the architecture.
        numbers: column of results.csv to its mean over the runs.
    """

    row: Mapping[Hashable, Any]
    numbers: Mapping[str, Estimate]

    @property
    def arch(self) -> str:
        """Its name."""
        return str(self.row["arch"])

    @property
    def params(self) -> int:
        """Trainable parameters."""
        return int(self.row["params"])

    @property
    def macs(self) -> int:
        """Multiply-accumulates per image."""
        return int(self.row["macs"])

    @property
    def spec(self) -> ArchSpec:
        """Family, depths and widths.

        Raises:
            InputError: for a row that names no architecture of a known family; so does `shares`.
        """
        return spec_of(self.row)

    @property
    def shares(self) -> tuple[float, ...]:
        """Each stage's part, in [0, 1], of the stages' parameters."""
        return stage_shares(self.row)

    @property
    def robust(self) -> Estimate:
        """Worst-case accuracy in percent."""
        return self.numbers["worst_case_acc"]


def networks(group: Group, columns: Sequence[str] = ("worst_case_acc",)) -> list[Network]:
    """The architectures of a group in the order of its rows; one that lacks a number in `columns` is left out.

    Raises:
        InputError: if nothing is left.
    """
    whole = group.rows[group.rows[list(columns)].notna().all(axis="columns")]
    if whole.empty:
        raise invalid("results", str(group), f"at least one row with {' and '.join(columns)}")
    return [
        Network(
            row=rows.iloc[0].to_dict(),
            numbers={name: _estimate(name, [float(value) for value in rows[name]], group.n_test) for name in columns},
        )
        for _, rows in whole.groupby("arch", sort=False)
    ]


def base_network(found: Sequence[Network]) -> Network:
    """The network with the most frequent width and depth in each stage, of which the others are changes.

    Raises:
        InputError: if there is no such network.
    """
    stages = mode(len(network.spec.depths) for network in found)
    alike = [network.spec for network in found if len(network.spec.depths) == stages]
    depths = tuple(map(mode, zip(*(spec.depths for spec in alike), strict=True)))
    widths = tuple(map(mode, zip(*(spec.widths for spec in alike), strict=True)))
    for network in found:
        if (network.spec.depths, network.spec.widths) == (depths, widths):
            return network
    raise InputError(f"results: no base network, which has the most frequent depths {depths} and widths {widths}")


def one_stage_changed(found: Sequence[Network], stage: int, quantity: Quantity) -> list[Network]:
    """The base, and the networks that differ from it only in `quantity` of the stage (counted from 0).

    Sorted by that stage's value. Errors are those of `base_network`.
    """

    def all_else(network: Network) -> dict[str, Any]:
        values = getattr(network.spec, quantity)
        return {**vars(network.spec), quantity: values[:stage] + values[stage + 1 :]}

    base = all_else(base_network(found))
    same = [network for network in found if all_else(network) == base]
    return sorted(same, key=lambda network: int(getattr(network.spec, quantity)[stage]))


def quarters(found: Sequence[Network]) -> tuple[list[Network], list[Network]]:
    """The best and the worst quarter by mean worst-case accuracy, best first; each at least one network.

    Raises:
        InputError: for fewer than two networks.
    """
    if len(found) < 2:
        raise invalid("networks", len(found), "at least 2, for a best and a worst")
    ranked = by_rank(found)
    size = max(1, len(ranked) // 4)
    return ranked[:size], ranked[-size:]


def by_rank(found: Sequence[Network]) -> list[Network]:
    """Sorted by mean worst-case accuracy, best first; of equals the one with fewer parameters first."""

    def key(network: Network) -> tuple[float, float, str]:
        params = network.row["params"]  # imported tables may lack them
        return -network.robust.mean, inf if pd.isna(params) else float(params), network.arch

    return sorted(found, key=key)


def _estimate(name: str, values: list[float], n: int) -> Estimate:
    sd = stdev(values) if len(values) > 1 else None
    if name == "stability" or name.endswith("_acc"):  # percentages of test images
        return Estimate(*accuracy_interval(values, n), len(values), sd)
    mean, low, high = mean_interval(values)
    return Estimate(mean, mean if low is None else low, mean if high is None else high, len(values), sd)
