"""The rows of the report's tables: one per architecture of a group, best first, which unfolds to its runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from robust_arch.analysis.formatting import accuracy
from robust_arch.analysis.groups import Group
from robust_arch.analysis.plots.pooled import Measurement, pooled
from robust_arch.analysis.tables import WORST_CASE, Cell, Column, Extras, Row, Summary


@dataclass(frozen=True)
class Architecture:
    """An architecture of one group.

    Attributes:
        name: of the architecture.
        group: position of the group; that of runs without numbers comes after the last one.
        rows: positions of its rows in the table of all rows.
        summaries: of each column.
        robust: worst-case accuracy, with the interval of the figures; None unless every run of the group has it.
        marked: whether one of its runs is the selected one.
    """

    name: str
    group: int
    rows: tuple[int, ...]
    summaries: tuple[Summary, ...]
    robust: Measurement | None
    marked: bool


def by_group(
    records: Sequence[Row],
    membership: Sequence[int],
    found: Sequence[Group],
    columns: Sequence[Column],
    extras: Extras,
) -> list[Architecture]:
    """The architectures of every group, group by group; in each the most robust one first.

    Args:
        records: rows of results.csv.
        membership: the group of each row.
        found: the groups.
        columns: of the table.
        extras: what the table adds to results.csv.
    """
    members: dict[tuple[int, str], list[int]] = {}
    for place, (row, group) in enumerate(zip(records, membership, strict=True)):
        members.setdefault((group, str(row["arch"])), []).append(place)
    estimates = [_estimates(group) for group in found]
    made = []
    for (group, name), places in members.items():
        robust = estimates[group].get(name) if group < len(found) else None
        rows = [records[place] for place in places]
        summaries = tuple(_summaries(columns, rows, robust))
        made.append(Architecture(name, group, tuple(places), summaries, robust, any(map(extras.is_marked, rows))))
    # equal means differ by rounding errors of their sums
    return sorted(made, key=lambda each: (each.group, -round(each.robust.mean, 6) if each.robust else 0.0))


def _estimates(group: Group) -> dict[str, Measurement]:
    if not group.rows["worst_case_acc"].notna().all():
        return {}
    return {measured.network.arch: _about_its_mean(measured) for measured in pooled(group)}


def _about_its_mean(measured: Measurement) -> Measurement:
    """The plain mean of the runs; where seeds are missing, the model's mean takes out the effects of the others."""
    mean = fmean(measured.runs)
    low, high = mean - (measured.mean - measured.low), mean + (measured.high - measured.mean)
    return replace(measured, mean=mean, low=max(low, 0.0), high=min(high, 100.0))


def _summaries(columns: Sequence[Column], rows: Sequence[Row], robust: Measurement | None) -> list[Summary]:
    return [
        _worst_case(robust, column.over(rows), rows[0])
        if robust and column.heading == WORST_CASE
        else column.over(rows)
        for column in columns
    ]


def _worst_case(robust: Measurement, over: Summary, row: Row) -> Summary:
    mean, low, high = (accuracy(value, row["n_test"]) for value in (robust.mean, robust.low, robust.high))
    scatter = "" if over.sd is None else f" ± {accuracy(over.sd, row['n_test'])}"
    return Summary(Cell(f"{mean}{scatter}", f"[{low}, {high}]"), robust.mean, over.sd)
