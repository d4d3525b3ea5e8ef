"""The data of the page's plot and table: one block of JSON, which contains every text once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from robust_arch.analysis.formatting import accuracy, checkpoint_text, counted
from robust_arch.analysis.groups import Group, accuracy_columns, groups
from robust_arch.analysis.networks import Network, networks
from robust_arch.analysis.pareto import pareto_front
from robust_arch.analysis.report.details import StudyDetails
from robust_arch.analysis.tables import (
    ARCHITECTURE,
    LAST_SHARE,
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
_SPEC = ("depths", "widths", "params", "MACs", LAST_SHARE, "seed")
_DIGITS = 6  # decimals of an accuracy in percent, finer than one of a million images
WITHOUT_NUMBERS = "without numbers: failed, diverged or invalid"


Number = float | int | None


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


def block(frame: pd.DataFrame, main: Group | None, extras: Extras, details: StudyDetails) -> str:
    """The data as JSON that is safe inside a script element. frame: rows of results.csv, in the order to show."""
    frame = frame.reset_index(drop=True)
    found = ordered_groups(groups(frame), main)
    texts = Texts()
    run_ids = [str(run) for run in frame["run_id"].drop_duplicates()]
    records: list[Row] = frame.to_dict("records")
    membership = _membership(frame, found)
    content = {
        "columns": [_column(column, records, texts, _part(column, frame)) for column in _columns(frame, extras)],
        "rows": _rows(records, run_ids, membership, extras, texts),
        "front": {cost: _fronts(records, membership, cost) for cost in COSTS},
        "groups": [_group(group, main) for group in found],
        "runs": [_run(run, details, texts) for run in run_ids],
        "without": WITHOUT_NUMBERS,
        "selected": [place for place, row in enumerate(records) if extras.is_marked(row)],
        "texts": texts.listed(),
    }
    # inside a script element only "<" can start something else: the end of the element, or a comment
    return json.dumps(content, allow_nan=False, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")


def ordered_groups(found: list[Group], main: Group | None) -> list[Group]:
    """The group of the figures first, then the other groups by size."""
    return sorted(found, key=lambda group: (main is None or group.key != main.key, -len(group.rows)))


def _columns(frame: pd.DataFrame, extras: Extras) -> list[Column]:
    return [*columns(frame, extras), text_column("status", "status"), text_column("run", "run_id")]


def _part(column: Column, frame: pd.DataFrame) -> str:
    """Where the column is in the description of a point: its specification, its scores, or neither."""
    if column.heading in _SPEC:
        return "spec"
    return "score" if column.heading in map(accuracy_heading, accuracy_columns(frame)) else ""


def _column(column: Column, records: list[Row], texts: Texts, part: str) -> dict[str, Any]:
    cells = [column.cell(row) for row in records]
    content: dict[str, Any] = {"heading": column.heading, "part": part, "names": column.heading == ARCHITECTURE}
    content["cells"] = [texts.place(cell.text) for cell in cells]
    if any(cell.small for cell in cells):
        content["small"] = [texts.place(cell.small) for cell in cells]
    if column.value is not None:
        content["values"] = [_number(column.value(row)) for row in records]
    return content


def _rows(
    records: list[Row], run_ids: list[str], membership: list[int], extras: Extras, texts: Texts
) -> dict[str, list[Any]]:
    places = {run: place for place, run in enumerate(run_ids)}
    intervals = [_interval(row) for row in records]
    return {
        "run": [places[str(row["run_id"])] for row in records],
        "group": membership,
        **{name: [texts.place(_plain(row[name])) for row in records] for name in FACETS},
        "params": [_number(row["params"]) for row in records],
        "macs": [_number(row["macs"]) for row in records],
        "share": [_number(last_share(row, extras.stage_shares)) for row in records],
        "robust": [_number(row["worst_case_acc"]) for row in records],
        "low": [low for low, _ in intervals],
        "high": [high for _, high in intervals],
    }


def _fronts(records: list[Row], membership: list[int], cost: str) -> list[int]:
    """Rows on the Pareto front of their own group."""
    members: dict[int, list[int]] = {}
    for place, group in enumerate(membership):
        members.setdefault(group, []).append(place)
    costs, robust = ([_number(row[name]) for row in records] for name in (cost, "worst_case_acc"))
    return sorted(place for places in members.values() for place in _front(places, costs, robust))


def _front(places: Iterable[int], costs: Sequence[Number], robust: Sequence[Number]) -> list[int]:
    """The places on the front, among those whose cost and accuracy are known."""
    known = [
        (place, cost, accuracy)
        for place in places
        if (cost := costs[place]) is not None and (accuracy := robust[place]) is not None
    ]
    front = pareto_front([cost for _, cost, _ in known], [accuracy for _, _, accuracy in known])
    return [known[position][0] for position in front]


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


def _group(group: Group, main: Group | None) -> dict[str, Any]:
    if main is None or group.key == main.key:
        short = f"checkpoint {checkpoint_text(group.checkpoint, group.weights)}, {counted(group.n_test, 'test image')}"
    else:
        short = group.difference(main)
    compared = group.rows["worst_case_acc"].notna().all()
    found = networks(group) if compared else []
    members = group.rows.groupby("arch", sort=False).indices
    positions = group.rows.index.to_numpy()
    return {
        "name": str(group),
        "short": short,
        "main": main is not None and group.key == main.key,
        "points": [_point(network, positions[members[network.arch]].tolist(), group.n_test) for network in found],
        "front": {cost: _network_front(found, cost) for cost in COSTS},
    }


def _network_front(found: Sequence[Network], cost: str) -> list[int]:
    """Positions of the networks on the Pareto front."""
    costs = [_number(network.row[cost]) for network in found]
    return sorted(_front(range(len(found)), costs, [_number(network.robust.mean) for network in found]))


def _point(network: Network, rows: list[int], n: int) -> dict[str, Any]:
    robust = network.robust
    mean, low, high = (accuracy(value, n) for value in (robust.mean, robust.low, robust.high))
    return {
        "rows": rows,
        "robust": _number(robust.mean),
        "low": _number(robust.low),
        "high": _number(robust.high),
        "text": f"{mean} [{low}, {high}]",
    }


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
