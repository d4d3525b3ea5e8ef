"""The data of the page's plot and table: one block of JSON, which contains every text once."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from robust_arch.analysis.formatting import checkpoint_text, counted
from robust_arch.analysis.groups import Group, accuracy_columns, groups
from robust_arch.analysis.pareto import pareto_front
from robust_arch.analysis.report.architectures import Architecture, by_group
from robust_arch.analysis.report.details import StudyDetails
from robust_arch.analysis.tables import (
    LAST_SHARE,
    SEED,
    Cell,
    Column,
    Extras,
    Row,
    accuracy_heading,
    columns,
    last_share,
    text_column,
)
from robust_arch.common.statistics import percent_interval

FACETS = ("checkpoint", "objective", "status")
COSTS = ("params", "macs")
"""The costs of Pareto fronts."""
EQUAL_COSTS = 1.05
"""Largest over smallest cost of a group below which no Pareto front is drawn: one budget, met within its tolerance."""
_SPEC = ("depths", "widths", "params", "MACs", LAST_SHARE, SEED)
OF_GROUP = ("checkpoint", "weights", "test images")
"""Columns that are the same for every row of a group."""
_DIGITS = 6  # decimals of an accuracy in percent, finer than one of a million images
WITHOUT_NUMBERS = "without numbers: failed, diverged or invalid"


Number = float | int | None
Studies = Mapping[str, Collection[str]]


class Texts:
    """A list of distinct texts, which the data refer to by position."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    def place(self, text: str) -> int:
        """The position of the text, which is added if it is new."""
        return self._places.setdefault(text, len(self._places))

    def listed(self) -> list[str]:
        """All texts, by position."""
        return list(self._places)


@dataclass(frozen=True)
class Table:
    """All rows of the page's table.

    Attributes:
        records: rows of results.csv, in the order to show.
        columns: of the table.
        groups: the main group first.
        membership: the group of each row; that of a row without numbers comes after the last one.
        architectures: of every group, in the order to show.
    """

    records: list[Row]
    columns: list[Column]
    groups: list[Group]
    membership: list[int]
    architectures: list[Architecture]

    @classmethod
    def of(cls, frame: pd.DataFrame, main: Group | None, extras: Extras) -> Table:
        """The table of these rows of results.csv."""
        frame = frame.reset_index(drop=True)
        found = ordered_groups(groups(frame), main)
        records: list[Row] = frame.to_dict("records")
        shown = [*columns(frame, extras), text_column("status", "status"), text_column("run", "run_id")]
        membership = _membership(frame, found)
        return cls(records, shown, found, membership, by_group(records, membership, found, shown, extras))


def block(table: Table, main: Group | None, extras: Extras, details: StudyDetails, studies: Studies) -> str:
    """The data as JSON that is safe inside a script element. studies: name to its runs."""
    records, texts = table.records, Texts()
    run_ids = list(dict.fromkeys(str(row["run_id"]) for row in records))
    scores = {accuracy_heading(str(name)) for group in table.groups for name in accuracy_columns(group.rows)}
    content = {
        "columns": [_column(place, table, texts, scores) for place in range(len(table.columns))],
        "rows": _rows(table, run_ids, extras, texts),
        "architectures": _architectures(table.architectures),
        "front": {cost: _fronts(table, cost) for cost in COSTS},
        "groups": [_group(place, table, main) for place in range(len(table.groups))],
        "cost": _first_cost(main),
        "runs": [_run(run, details, texts) for run in run_ids],
        "studies": [{"name": name, "runs": _among(run_ids, runs)} for name, runs in studies.items()],
        "without": WITHOUT_NUMBERS,
        "selected": [place for place, row in enumerate(records) if extras.is_marked(row)],
        "texts": texts.listed(),
    }
    # inside a script element only "<" can start something else: the end of the element, or a comment
    return json.dumps(content, allow_nan=False, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")


def ordered_groups(found: list[Group], main: Group | None) -> list[Group]:
    """The group of the figures first, then the other groups by size."""
    return sorted(found, key=lambda group: (main is None or group.key != main.key, -len(group.rows)))


def _column(place: int, table: Table, texts: Texts, scores: Collection[str]) -> dict[str, Any]:
    column = table.columns[place]
    content: dict[str, Any] = {"heading": column.heading, "part": _part(column, scores)}
    content |= {"names": column.names_row, "of_group": column.heading in OF_GROUP}
    content |= _cells([column.cell(row) for row in table.records], texts)
    summaries = [each.summaries[place] for each in table.architectures]
    content["means"] = _cells([each.cell for each in summaries], texts)
    if column.value is not None:
        content["values"] = [_number(column.value(row)) for row in table.records]
        content["means"]["values"] = [_number(each.value) for each in summaries]
        content["means"]["sd"] = [_number(each.sd) for each in summaries]
    return content


def _part(column: Column, scores: Collection[str]) -> str:
    """Where the column is in the description of a point: its specification, its scores, or neither."""
    if column.heading in _SPEC:
        return "spec"
    return "score" if column.heading in scores else ""


def _cells(cells: Sequence[Cell], texts: Texts) -> dict[str, Any]:
    content = {"cells": [texts.place(cell.text) for cell in cells]}
    if any(cell.small for cell in cells):
        content["small"] = [texts.place(cell.small) for cell in cells]
    return content


def _rows(table: Table, run_ids: list[str], extras: Extras, texts: Texts) -> dict[str, list[Any]]:
    records, places = table.records, {run: place for place, run in enumerate(run_ids)}
    intervals = [_interval(row) for row in records]
    return {
        "run": [places[str(row["run_id"])] for row in records],
        "group": table.membership,
        **{name: [texts.place(_plain(row[name])) for row in records] for name in FACETS},
        "params": [_number(row["params"]) for row in records],
        "macs": [_number(row["macs"]) for row in records],
        "share": [_number(last_share(row, extras.stage_shares)) for row in records],
        "robust": [_number(row["worst_case_acc"]) for row in records],
        "low": [low for low, _ in intervals],
        "high": [high for _, high in intervals],
    }


def _architectures(found: Sequence[Architecture]) -> dict[str, list[Any]]:
    robust = [each.robust for each in found]
    return {
        "group": [each.group for each in found],
        "rows": [each.rows for each in found],
        "robust": [_number(each.mean) if each else None for each in robust],
        "low": [_number(each.low) if each else None for each in robust],
        "high": [_number(each.high) if each else None for each in robust],
    }


def _fronts(table: Table, cost: str) -> list[int]:
    """Rows on the Pareto front of their own group, of groups whose costs differ."""
    costs, robust = ([_number(row[name]) for row in table.records] for name in (cost, "worst_case_acc"))
    members: dict[int, list[int]] = {}
    for place, group in enumerate(table.membership):
        members.setdefault(group, []).append(place)
    found = [places for places in members.values() if differ(costs[place] for place in places)]
    return sorted(place for places in found for place in _front(places, costs, robust))


def _front(places: Iterable[int], costs: Sequence[Number], robust: Sequence[Number]) -> list[int]:
    """The places on the front, among those whose cost and accuracy are known."""
    known = [
        (place, cost, accuracy)
        for place in places
        if (cost := costs[place]) is not None and (accuracy := robust[place]) is not None
    ]
    front = pareto_front([cost for _, cost, _ in known], [accuracy for _, _, accuracy in known])
    return [known[position][0] for position in front]


def differ(costs: Iterable[Number]) -> bool:
    """Whether these costs differ by more than networks of one budget do; None is not known."""
    known = [cost for cost in costs if cost is not None and not pd.isna(cost)]
    return bool(known) and max(known) > EQUAL_COSTS * min(known)


def _first_cost(main: Group | None) -> str:
    """What the plot shows at first: the first cost that differs, else the last stage's share."""
    return next((cost for cost in COSTS if main and differ(main.rows[cost])), "share")


def _among(run_ids: Sequence[str], runs: Collection[str]) -> list[int]:
    return [place for place, run in enumerate(run_ids) if run in runs]


def _interval(row: Row) -> tuple[float | None, float | None]:
    if pd.isna(row["worst_case_acc"]):
        return None, None
    low, high = percent_interval(float(row["worst_case_acc"]), int(row["n_test"]))
    return _number(low), _number(high)


def _membership(frame: pd.DataFrame, found: list[Group]) -> list[int]:
    """The group of each row; rows without numbers come after the last group."""
    places = [len(found)] * len(frame)
    for place, group in enumerate(found):
        for position in group.rows.index:
            places[position] = place
    return places


def _group(place: int, table: Table, main: Group | None) -> dict[str, Any]:
    group = table.groups[place]
    if main is None or group.key == main.key:
        short = f"checkpoint {checkpoint_text(group.checkpoint, group.weights)}, {counted(group.n_test, 'test image')}"
    else:
        short = group.difference(main)
    return {
        "name": str(group),
        "short": short,
        "main": main is not None and group.key == main.key,
        "front": {cost: _front_of(place, table, cost) for cost in COSTS},
    }


def _front_of(group: int, table: Table, cost: str) -> list[int] | None:
    """Positions of the architectures on the group's Pareto front; None where their costs are equal."""
    costs = [_number(table.records[each.rows[0]][cost]) for each in table.architectures]
    members = [place for place, each in enumerate(table.architectures) if each.group == group and each.robust]
    if not differ(costs[place] for place in members):
        return None
    robust = [_number(each.robust.mean) if each.robust else None for each in table.architectures]
    return sorted(_front(members, costs, robust))


def _run(run: str, details: StudyDetails, texts: Texts) -> dict[str, Any]:
    content: dict[str, Any] = {"command": details.commands.get(run, "")}
    if facts := details.facts.get(run):
        content["facts"] = _places((part for fact in facts for part in fact), texts)
    if card := details.cards.get(run):
        content["card"] = _places(card.splitlines(), texts)
    return content


def _places(lines: Iterable[str], texts: Texts) -> list[int]:
    return [texts.place(line) for line in lines]


def _number(value: float | None) -> Number:
    if value is None or pd.isna(value):
        return None
    rounded = round(float(value), _DIGITS)
    return int(rounded) if rounded.is_integer() else rounded


def _plain(value: Any) -> str:
    return "" if pd.isna(value) else str(value)
