"""The rows of plan.csv and results.csv, each cell checked once; an empty cell is a number that was not computed."""

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from robust_arch.runs.fields import (
    Fields,
    Identifier,
    Measure,
    MisfitError,
    Name,
    Percent,
    PerStage,
    Positive,
    Seconds,
    Seed,
)  # fmt: skip

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_INTEGER = re.compile(r"(-?[0-9]{1,19})(\.0*)?")
_LONGEST = 100_000  # characters of a line; the csv module refuses longer cells


class PlanRow(Fields):
    """A row of plan.csv."""

    run_id: Identifier
    arch: Name
    params: Positive
    macs: Positive
    seed: Seed


class ResultsRow(Fields):
    """A row of results.csv; that of a failed or diverged run has no numbers.

    A published table may name an architecture without its stages and costs.
    """

    run_id: Identifier
    study: Name
    arch: Name
    family: Name
    depths: PerStage | None = None
    widths: PerStage | None = None
    params: Positive | None = None
    macs: Positive | None = None
    objective: Name | None = None
    recipe: Name | None = None
    train_threat: Name | None = None
    data: Name
    seed: Seed | None = None
    epochs: Positive | None = None
    checkpoint: Name | None = None
    weights: Name | None = None
    threat: Name | None = None
    n_test: Positive | None = None
    stability: Percent | None = None
    lipschitz: Measure | None = None
    train_seconds: Seconds | None = None
    status: Name
    hardware: Name | None = None
    precision: Name | None = None
    version: Name | None = None


class ScoredRow(ResultsRow):
    """A row of results.csv with accuracies; further ones are columns `<attack>_acc`."""

    __pydantic_extra__: dict[str, Percent] = Field(init=False)
    checkpoint: Name
    weights: Name
    threat: Name
    n_test: Positive
    clean_acc: Percent


_WHOLE = frozenset({"params", "macs", "seed", "epochs", "n_test"})
_TEXT = frozenset(ResultsRow.model_fields) - _WHOLE - {"stability", "lipschitz", "train_seconds"}


def plan_row(cells: Mapping[str, str]) -> dict[str, str]:
    """A row of plan.csv as text, without further columns.

    Raises:
        MisfitError: for a cell that does not fit.
    """
    _read(PlanRow, {column: cells[column] for column in PlanRow.model_fields})
    return {column: cells[column] for column in PlanRow.model_fields}


def results_row(cells: Mapping[str, str]) -> dict[str, Any]:
    """A row of results.csv, without empty cells and without columns that are neither its own nor `<attack>_acc`.

    Columns that earlier versions did not write may be missing.

    Raises:
        MisfitError: for a cell that does not fit.
    """
    accuracies = {column: cell for column, cell in cells.items() if column.endswith("_acc") and cell}
    known = {column: cell for column in ResultsRow.model_fields if (cell := cells.get(column, ""))}
    return _read(ScoredRow if accuracies else ResultsRow, {**known, **accuracies})


def _read(kind: type[Fields], cells: Mapping[str, str]) -> dict[str, Any]:
    """The cells as values; a misfit names the cell as the file has it."""
    try:
        return kind.read({column: _value(column, cell) for column, cell in cells.items()}).plain()
    except MisfitError as misfit:
        raise MisfitError(misfit.field, ascii(cells.get(misfit.field, "")), misfit.allowed) from None


def _value(column: str, cell: str) -> Any:
    """The number in a cell; text that is none stays text, which no column of numbers takes."""
    if column in _TEXT:
        return None if "\ufffd" in cell else cell  # bytes that are no UTF-8
    if column in _WHOLE:
        return int(whole[1]) if (whole := _INTEGER.fullmatch(cell)) else cell
    return float(cell) if _NUMBER.fullmatch(cell) else cell


def read_table(
    path: Path, columns: Sequence[str], read: Callable[[Mapping[str, str]], dict[str, Any]]
) -> Iterator[tuple[int, dict[str, Any] | MisfitError]]:
    """Each row as `read` returns it, or why it does not fit, with its line number, counted from 1 for the header.

    Raises:
        MisfitError: if the header lacks one of `columns`.
        OSError: if the file cannot be read.
    """
    # no cell has several lines, so that an unclosed quotation mark damages one row only
    lines = path.read_text(encoding="utf-8-sig", errors="replace").split("\n")
    header = _cells(lines[0])
    if missing := [column for column in columns if column not in header]:
        raise MisfitError("header", ", ".join(header), f"the columns {', '.join(missing)}")
    for number, line in enumerate(lines[1:], start=2):
        if not line.rstrip("\r"):
            continue
        try:
            cells = _cells(line)
            if len(cells) != len(header):
                raise MisfitError("row", f"{len(cells)} cells", f"{len(header)}, one per column")
            yield number, read(dict(zip(header, cells, strict=True)))
        except MisfitError as misfit:
            yield number, misfit


def _cells(line: str) -> list[str]:
    if len(line) > _LONGEST:
        raise MisfitError("row", ascii(line[:_LONGEST]), f"at most {_LONGEST} characters")
    return next(csv.reader([line.rstrip("\r")]), [])
