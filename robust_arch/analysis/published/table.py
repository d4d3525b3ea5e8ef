"""A published table, cell by cell, as rows of results.csv; a row that does not fit is named and left out."""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from collections.abc import Mapping as Map
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from robust_arch.analysis.published.mapping import Architecture, CellText, Evaluation, Mapping
from robust_arch.architectures import ArchSpec, arch_name, cost
from robust_arch.errors import InputError, invalid
from robust_arch.runs import SITE_COLUMNS
from robust_arch.runs.fields import MisfitError, Name, Positive, Seed, checked

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_MOST_ROWS = 2_000_000
_STEM = 16  # channels that a widening factor of 1 has in the first stage
_WHOLE_COLUMNS = {"seed": Seed, "epochs": Positive, "n_test": Positive}

Cells = Map[str, str]
_Row = tuple[int, dict[str, Any], Cells]
"""Line, architecture, and cells."""


@dataclass
class TableRows:
    """What a table gives.

    Attributes:
        rows: of results.csv, without study and run_id, with `line` and, where it is another one, the run's first line
            `run`.
        left_out: line to why; line 1 is the header.
        filtered: rows that `where` leaves out.
        ratios: `params` and `macs` to what the table says over the closed form, where it holds both.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    left_out: dict[int, str] = field(default_factory=dict)
    filtered: int = 0
    ratios: dict[str, list[float]] = field(default_factory=dict)


def read_rows(path: Path, mapping: Mapping) -> TableRows:
    """The rows of results.csv that the table in `path` gives under a mapping.

    Raises:
        InputError: for a file that is no such table, or whose header lacks a column that the mapping names.
    """
    found = TableRows()
    for line, network, cells, evaluations in _chosen(list(_networks(path, mapping, found)), mapping, found):
        if not mapping.evaluations:
            found.rows.append({**network, "line": line})
        for evaluation in evaluations:
            try:
                found.rows.append({**network, **_numbers(cells, evaluation, mapping), "line": line})
            except MisfitError as misfit:
                found.left_out[line] = str(misfit)
    _require_unit(found.rows, mapping)
    return found


def _networks(path: Path, mapping: Mapping, found: TableRows) -> Iterator[_Row]:
    """The selected rows that are no copies, each with its architecture."""
    seen: dict[tuple[str, ...], int] = {}
    for line, cells in _lines(path, mapping, found):
        if any(cells[column].strip() not in allowed for column, allowed in mapping.where.items()):
            found.filtered += 1
            continue
        try:
            if (first := seen.setdefault(tuple(cells.values()), line)) != line:
                raise MisfitError("row", ascii("the row"), f"a row of its own, not line {first} again")
            yield line, _network(cells, mapping.architecture, found.ratios), cells
        except (MisfitError, InputError) as error:
            found.left_out[line] = str(error)


def _lines(path: Path, mapping: Mapping, found: TableRows) -> Iterator[tuple[int, Cells]]:
    """Every row with its line, as a column's name to its cell."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as handle:
            reader = csv.reader(handle, delimiter=mapping.delimiter)
            header = [name.strip() for name in next(reader, [])]
            if missing := [name for name in mapping.columns if name not in header]:
                other = next((sign for sign in ";\t|," if len(header) == 1 and sign in header[0]), None)
                raise InputError(
                    f"columns = {', '.join(header)[:300]!r}: {path.name} lacks {', '.join(missing)}, which the mapping "
                    f"{mapping.name} names"
                    + (f"; cells seem to be separated by {other!r}: set `delimiter` in the mapping" if other else "")
                )
            if twice := [name for name in mapping.columns if header.count(name) > 1]:
                raise invalid("columns", twice[0], f"one column of that name in {path.name}")
            for count, cells in enumerate(reader):
                if count >= _MOST_ROWS:
                    raise invalid("FILE", str(path), f"a table of at most {_MOST_ROWS:,} rows")
                if not cells:
                    continue
                if len(cells) != len(header):
                    found.left_out[reader.line_num] = f"row = {len(cells)} cells: expected {len(header)}"
                    continue
                yield reader.line_num, dict(zip(header, cells, strict=True))
    except (OSError, csv.Error) as error:
        raise invalid("FILE", str(path), f"a CSV file ({error})") from None


def _network(cells: Cells, how: Architecture, ratios: dict[str, list[float]]) -> dict[str, Any]:
    """arch, family, depths, widths, params and macs of a row; what the table does not tell is absent."""
    spec = _spec(cells, how)
    row: dict[str, Any] = {"family": how.family}
    if how.id is not None:
        row["arch"] = _filled("arch", how.id, cells)
    if spec is not None:
        row |= {"arch": arch_name(spec), "family": spec.family}
        row |= {"depths": spec.depths_text, "widths": spec.widths_text, **_closed_form(spec, how)}
    for name, column in (("params", how.params), ("macs", how.macs)):
        if column is None:
            continue
        value = round(_number(column, cells) * how.scale.get(name, 1.0))
        if not 1 <= value < 2**53:
            raise MisfitError(column, ascii(cells[column]), "a number of at least 1")
        if spec is not None:
            ratios.setdefault(name, []).append(value / row[name])
        row[name] = value
    return row


def _spec(cells: Cells, how: Architecture) -> ArchSpec | None:
    if how.known:
        name = _filled("arch", how.id, cells) if how.id else ""
        if name not in how.known:
            raise MisfitError("architecture", ascii(name), "an architecture that the mapping knows")
        known = how.known[name]
        return _built(str(known.get("family", how.family)), tuple(known["depths"]), tuple(known["widths"]))
    if not how.depths:
        return None
    depths = tuple(_whole("depths", each, cells) for each in how.depths)
    if how.widths:
        return _built(how.family, depths, tuple(_whole("widths", each, cells) for each in how.widths))
    widths = []
    for stage, each in enumerate(how.widening):
        width = _STEM * 2**stage * (_number(each, cells) if isinstance(each, str) else each)
        if not math.isclose(width, round(width)) or width < 1:
            raise MisfitError("widening", ascii(each if not isinstance(each, str) else cells[each]), "whole channels")
        widths.append(round(width))
    return _built(how.family, depths, tuple(widths))


@cache
def _built(family: str, depths: tuple[int, ...], widths: tuple[int, ...]) -> ArchSpec:
    return ArchSpec(family, depths, widths)


@cache
def _cost(spec: ArchSpec, classes: int, image_shape: tuple[int, int, int]) -> tuple[int, int]:
    found = cost(spec, classes, image_shape)
    return found.params, found.macs


def _closed_form(spec: ArchSpec, how: Architecture) -> dict[str, int]:
    params, macs = _cost(spec, how.classes, how.image_shape)
    return {"params": params, "macs": macs}


def _filled(name: str, text: CellText, cells: Cells) -> str:
    """The text with its cells, as one line."""
    value = " ".join(text.substitute(cells).split())
    if "\ufffd" in value:
        raise MisfitError(name, ascii(value), "UTF-8 text")
    checked(Name, value, name)
    if len(value) > 200:
        raise MisfitError(name, ascii(value), "at most 200 characters")
    return value


def _number(column: str, cells: Cells) -> float:
    cell = cells[column].strip()
    if not _NUMBER.fullmatch(cell) or not math.isfinite(value := float(cell)):
        raise MisfitError(column, ascii(cell), "a number")
    return value


def _whole(name: str, given: float | str, cells: Cells) -> int:
    value = _number(given, cells) if isinstance(given, str) else given
    if value != round(value) or not 1 <= value < 10**9:
        raise MisfitError(given if isinstance(given, str) else name, ascii(value), "an integer of at least 1")
    return round(value)


def _chosen(
    read: Sequence[_Row], mapping: Mapping, found: TableRows
) -> Iterator[tuple[int, dict[str, Any], Cells, Sequence[Evaluation]]]:
    """Each row with the evaluations that it holds; of one row per epoch the last one, and the one that was picked."""
    if mapping.epoch is None:
        for line, network, cells in read:
            yield line, network, cells, mapping.evaluations
        return
    for epochs in _runs(read, mapping, found):
        count = len({each.epoch for each in epochs})
        if count < len(epochs):
            found.left_out[epochs[0].line] = f"{len(epochs)} rows of {count} epochs: expected one per epoch and run"
            continue
        ends = {"last": max(epochs, key=lambda each: each.epoch)}
        if scored := [each for each in epochs if each.picked is not None]:
            ends["best"] = max(scored, key=lambda each: (each.picked or 0.0, -each.epoch))
        for evaluation in mapping.evaluations:
            if end := ends.get(evaluation.values["checkpoint"].template):
                yield end.line, {**end.network, "epochs": count, "run": epochs[0].line}, end.cells, [evaluation]


@dataclass(frozen=True)
class _Epoch:
    """One epoch of a run; picked: the number that picks `best`, None where it was not computed."""

    epoch: float
    picked: float | None
    line: int
    network: dict[str, Any]
    cells: Cells


def _runs(read: Sequence[_Row], mapping: Mapping, found: TableRows) -> Iterator[list[_Epoch]]:
    """The epochs of each run: of one architecture, seed, data set and threat."""
    column, picked_by = mapping.epoch or ("", "")
    runs: dict[tuple[Any, ...], list[_Epoch]] = {}
    for line, network, cells in read:
        try:
            picked = None if _is_missing(cells[picked_by], mapping) else _number(picked_by, cells)
            values = _values(cells, mapping.evaluations[0])
            key = (network.get("arch"), *(values.get(name) for name in ("seed", "data", "threat")))
            runs.setdefault(key, []).append(_Epoch(_number(column, cells), picked, line, network, cells))
        except MisfitError as misfit:
            found.left_out[line] = str(misfit)
    yield from runs.values()


def _values(cells: Cells, evaluation: Evaluation) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, text in evaluation.values.items():
        value = _filled(name, text, cells)
        if name not in _WHOLE_COLUMNS:
            row[name] = value
            continue
        number = float(value) if _NUMBER.fullmatch(value) else math.nan
        row[name] = checked(_WHOLE_COLUMNS[name], int(number) if number.is_integer() else value, name)
    return row


def _numbers(cells: Cells, evaluation: Evaluation, mapping: Mapping) -> dict[str, Any]:
    """The columns of an evaluation; the worst case is the smallest accuracy of its attacks."""
    row = _values(cells, evaluation)
    row["clean_acc"] = _accuracy(evaluation.clean, cells, mapping)
    if row["clean_acc"] is None:
        raise MisfitError(evaluation.clean, ascii(cells[evaluation.clean]), "a clean accuracy")
    robust = {name: _accuracy(column, cells, mapping) for name, column in evaluation.attacks.items()}
    known = {name: value for name, value in robust.items() if value is not None}
    if not known:
        raise MisfitError(", ".join(evaluation.attacks.values()), ascii(""), "an accuracy under an attack")
    row |= {f"{name}_acc": value for name, value in known.items()}
    return {**row, "worst_case_acc": min(known.values())}


def _is_missing(cell: str, mapping: Mapping) -> bool:
    return not cell.strip() or cell.strip() in mapping.missing


def _accuracy(column: str, cells: Cells, mapping: Mapping) -> float | None:
    """In percent; None where it was not computed."""
    if _is_missing(cells[column], mapping):
        return None
    cell = cells[column].strip()
    value = _number(column, {column: cell.removesuffix("%").rstrip() if mapping.percent else cell})
    if not 0 <= value <= (100 if mapping.percent else 1):
        raise MisfitError(
            column, ascii(cell), "a percentage from 0 to 100" if mapping.percent else "a fraction from 0 to 1"
        )
    return value if mapping.percent else round(100 * value, 10)


def _require_unit(rows: Sequence[Map[str, Any]], mapping: Mapping) -> None:
    """Fractions that are read as percentages are all at most 1, which no table of trained networks is."""
    clean = [row["clean_acc"] for row in rows if "clean_acc" in row]
    if mapping.percent and clean and max(clean) <= 1:
        raise invalid("unit", "percent", f"fraction, since no clean accuracy of {len(clean):,} is above 1")


def repeated(rows: Sequence[Map[str, Any]]) -> dict[int, str]:
    """Rows with the architecture, seed and evaluation of an earlier one: line to why; without a seed they are runs."""
    first: dict[tuple[Any, ...], int] = {}
    names = (
        "arch", "objective", "recipe", "train_threat", "data", "seed", "epochs", "threat", "weights", "checkpoint",
        *SITE_COLUMNS,
    )  # fmt: skip
    found = {}
    for row in rows:
        if row.get("seed") is None or "clean_acc" not in row:
            continue
        key = tuple(row.get(name) for name in names)
        if (line := first.setdefault(key, row["line"])) != row["line"]:
            found[row["line"]] = f"seed = {row['seed']}: architecture, seed and evaluation are those of line {line}"
    return found


def counts(reasons: Map[int, str]) -> list[str]:
    """Why rows were left out, the most frequent reason first, as text with the number of lines and the first one."""
    kinds = Counter(reason.rpartition(": expected ")[2] or reason for reason in reasons.values())
    told = []
    for kind, number in kinds.most_common():
        line, reason = next((line, reason) for line, reason in sorted(reasons.items()) if reason.endswith(kind))
        more = f" (and {number - 1:,} more of this kind)" if number > 1 else ""
        told.append(f"line {line}: {reason}{more}")
    return told
