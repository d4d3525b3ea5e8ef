"""The rows of plan.csv and results.csv, every cell checked once; an empty cell is a number that was not computed."""

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from robust_arch.runs import schema
from robust_arch.runs.schema import Check, MisfitError

_INTEGER = re.compile(r"-?[0-9]{1,19}(\.0*)?")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_LONGEST = 100_000  # characters of a line; the csv module refuses longer cells

Cell = Callable[[str], Any]
"""From a cell's text to its value; raises MisfitError."""


def _text(check: Check) -> Cell:
    def read(cell: str) -> str:
        if "\ufffd" in cell:
            raise MisfitError(cell, "UTF-8 text")
        check(cell)
        return cell

    return read


def _integer(check: Check) -> Cell:
    def read(cell: str) -> int:
        value = int(cell.partition(".")[0]) if _INTEGER.fullmatch(cell) else cell
        _check(check, value, cell)
        return int(value)

    return read


def _number(check: Check) -> Cell:
    def read(cell: str) -> float:
        value = float(cell) if _NUMBER.fullmatch(cell) else cell
        _check(check, value, cell)
        return float(value)

    return read


def _check(check: Check, value: Any, cell: str) -> None:
    """A misfit names the cell as it stands in the file."""
    try:
        check(value)
    except MisfitError as misfit:
        raise MisfitError(cell, misfit.expected) from None


_RUN_ID, _NAME, _PER_STAGE = (_text(check) for check in (schema.identifier, schema.name, schema.per_stage))
_POSITIVE, _SEED, _PERCENT = _integer(schema.positive), _integer(schema.any_integer), _number(schema.percent)
PLAN: Mapping[str, Cell] = {
    "run_id": _RUN_ID, "arch": _NAME, "params": _POSITIVE, "macs": _POSITIVE, "seed": _SEED,
}  # fmt: skip
"""The columns of plan.csv, all of them filled."""
_OF_A_RUN: Mapping[str, Cell] = {
    "run_id": _RUN_ID, "study": _NAME, "arch": _NAME, "family": _NAME, "data": _NAME, "status": _NAME,
}  # fmt: skip
_OF_AN_EVALUATION: Mapping[str, Cell] = {
    "checkpoint": _NAME, "weights": _NAME, "threat": _NAME, "n_test": _POSITIVE, "clean_acc": _PERCENT,
}  # fmt: skip
_FURTHER: Mapping[str, Cell] = {  # a published table may name an architecture without its stages and costs
    "depths": _PER_STAGE, "widths": _PER_STAGE, "params": _POSITIVE, "macs": _POSITIVE,
    "objective": _NAME, "recipe": _NAME, "train_threat": _NAME, "seed": _SEED, "epochs": _POSITIVE,
    "stability": _PERCENT, "lipschitz": _number(schema.measure), "train_seconds": _number(schema.seconds),
}  # fmt: skip
_RESULTS: Mapping[str, Cell] = {**_OF_A_RUN, **_OF_AN_EVALUATION, **_FURTHER}


def plan_row(cells: Mapping[str, str]) -> dict[str, str]:
    """A row of plan.csv as text, without columns that are not in PLAN.

    Raises:
        MisfitError: for a cell that does not fit.
    """
    for column, read in PLAN.items():
        _read(column, read, cells[column], needed=True)
    return {column: cells[column] for column in PLAN}


def results_row(cells: Mapping[str, str]) -> dict[str, Any]:
    """A row of results.csv, without empty cells and without columns that are neither its own nor `<attack>_acc`.

    Raises:
        MisfitError: for a cell that does not fit.
    """
    row = {}
    scored = any(cell for column, cell in cells.items() if column.endswith("_acc"))
    for column, cell in cells.items():
        read = _PERCENT if column.endswith("_acc") else _RESULTS.get(column)
        if read is None:
            continue
        needed = column in _OF_A_RUN or (scored and column in _OF_AN_EVALUATION)
        if (value := _read(column, read, cell, needed=needed)) is not None:
            row[column] = value
    return row


def _read(column: str, read: Cell, cell: str, *, needed: bool) -> Any:
    try:
        return read(cell) if cell or needed else None
    except MisfitError as misfit:
        raise misfit.inside(column) from None


def read_table(
    path: Path, columns: Sequence[str], read: Callable[[Mapping[str, str]], dict[str, Any]]
) -> Iterator[tuple[int, dict[str, Any] | MisfitError]]:
    """Every row with its line, counted from 1 for the header, as `read` makes it of the cells, or why it does not fit.

    Raises:
        MisfitError: if the header lacks one of `columns`.
        OSError: if the file cannot be read.
    """
    # the package writes no cell of several lines: a quotation mark that is never closed spoils one row, not the rest
    lines = path.read_text(encoding="utf-8-sig", errors="replace").split("\n")
    header = _cells(lines[0])
    if missing := [column for column in columns if column not in header]:
        raise MisfitError(", ".join(header), f"the columns {', '.join(missing)}").inside("header")
    for number, line in enumerate(lines[1:], start=2):
        if not line.rstrip("\r"):
            continue
        try:
            cells = _cells(line)
            if len(cells) != len(header):
                raise MisfitError(f"{len(cells)} cells", f"{len(header)}, one per column").inside("row")
            yield number, read(dict(zip(header, cells, strict=True)))
        except MisfitError as misfit:
            yield number, misfit


def _cells(line: str) -> list[str]:
    if len(line) > _LONGEST:
        raise MisfitError(line, f"at most {_LONGEST} characters").inside("row")
    return next(csv.reader([line.rstrip("\r")]), [])
