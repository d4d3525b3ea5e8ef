"""One entry an architecture of a group: what it is, what it costs, and its means over runs with intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pandas as pd

from robust_arch.analysis.groups import Group
from robust_arch.analysis.points import accuracy_interval
from robust_arch.analysis.reading import spec_of, stage_shares
from robust_arch.architectures import ArchSpec
from robust_arch.errors import InputError, invalid
from robust_arch.statistics import mean_interval

Quantity = Literal["widths", "depths"]


@dataclass(frozen=True)
class Estimate:
    """A mean over `runs` runs with the bounds of its 95% interval.

    For a percentage of test images from one run the interval is Wilson's, for several Student's t over the runs, cut
    to [0, 100]. For another number from one run both bounds equal the mean.
    """

    mean: float
    low: float
    high: float
    runs: int


@dataclass(frozen=True)
class Network:
    """An architecture with its cost and its recorded numbers, named as the columns of results.csv.

    shares: each stage's part, in [0, 1], of the stages' parameters.
    """

    arch: str
    spec: ArchSpec
    params: int
    macs: int
    shares: tuple[float, ...]
    numbers: Mapping[str, Estimate]

    @property
    def robust(self) -> Estimate:
        """Worst-case accuracy in percent."""
        return self.numbers["worst_case_acc"]


def networks(group: Group, columns: Sequence[str] = ("worst_case_acc",)) -> list[Network]:
    """The architectures of a group in the order of its rows; one that lacks a number in `columns` is left out.

    Raises:
        InputError: for a row that names no architecture, or if nothing is left.
    """
    whole = group.rows[group.rows[list(columns)].notna().all(axis="columns")]
    if whole.empty:
        raise invalid("results", str(group), f"at least one row with {' and '.join(columns)}")
    return [_network(str(arch), rows, group.n_test, columns) for arch, rows in whole.groupby("arch", sort=False)]


def base_network(found: Sequence[Network]) -> Network:
    """The network that the others are changes of: in each stage it has the most frequent width and depth.

    Raises:
        InputError: if no such network is there.
    """
    depths, widths = _most_frequent(found)
    for network in found:
        if (network.spec.depths, network.spec.widths) == (depths, widths):
            return network
    raise InputError(f"results: no network has the most frequent depths {depths} and widths {widths}, so none is base")


def one_stage_changed(found: Sequence[Network], stage: int, quantity: Quantity) -> list[Network]:
    """Networks that differ from the base in `quantity` of the stage (counted from 0) and nothing else, and the base.

    In the order of that stage's value. Errors as above.
    """
    base = base_network(found)

    def as_base(network: Network) -> ArchSpec:
        value = getattr(base.spec, quantity)[stage]
        changed = getattr(network.spec, quantity)
        values: dict[str, Any] = {quantity: (*changed[:stage], value, *changed[stage + 1 :])}
        return replace(network.spec, **values)

    alike = [network for network in found if len(network.spec.depths) == len(base.spec.depths)]
    same = [network for network in alike if as_base(network) == base.spec]
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
    """By mean worst-case accuracy, best first; of equals the one with fewer parameters."""
    return sorted(found, key=lambda network: (-network.robust.mean, network.params, network.arch))


def _most_frequent(found: Sequence[Network]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Depths and widths, among networks of the most frequent number of stages."""
    stages = _mode(len(network.spec.depths) for network in found)
    alike = [network.spec for network in found if len(network.spec.depths) == stages]
    depths = tuple(map(_mode, zip(*(spec.depths for spec in alike), strict=True)))
    return depths, tuple(map(_mode, zip(*(spec.widths for spec in alike), strict=True)))


def _mode(values: Iterable[int]) -> int:
    return Counter(values).most_common(1)[0][0]


def _network(arch: str, rows: pd.DataFrame, n: int, columns: Sequence[str]) -> Network:
    first = rows.iloc[0].to_dict()
    return Network(
        arch=arch,
        spec=spec_of(first),
        params=int(first["params"]),
        macs=int(first["macs"]),
        shares=stage_shares(first),
        numbers={name: _estimate(name, [float(value) for value in rows[name]], n) for name in columns},
    )


def _estimate(name: str, values: list[float], n: int) -> Estimate:
    if name == "stability" or name.endswith("_acc"):  # percentages of test images
        return Estimate(*accuracy_interval(values, n), len(values))
    mean, low, high = mean_interval(values)
    return Estimate(mean, mean if low is None else low, mean if high is None else high, len(values))
