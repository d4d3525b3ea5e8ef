"""The rows of a study as a table: one description of the columns, printed as HTML or as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from robust_arch.analysis.grid import Grid, Heading, markdown, plain
from robust_arch.analysis.groups import Group, accuracy_columns, groups
from robust_arch.analysis.markup import Markup, element, joined
from robust_arch.analysis.points import percent_interval

Row = dict[Hashable, Any]
ABSENT = "-"
_SI = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True)
class Cell:
    """What a table prints: a text, with small print after it where there is any."""

    text: str
    small: str = ""


@dataclass(frozen=True)
class Column:
    """A heading and what stands under it for a row of results.csv; `numeric` columns are aligned right."""

    heading: str
    cell: Callable[[Row], Cell]
    numeric: bool = True


@dataclass(frozen=True)
class Extras:
    """What a table adds to results.csv.

    numbers: architecture to its number in the figures. stage_shares: run_id to shares of the stages' parameters.
    best_val: run_id to robust accuracy in percent on `n_val` held-out images. selected: the run_id to mark.
    """

    numbers: Mapping[str, int] = field(default_factory=dict)
    stage_shares: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    best_val: Mapping[str, float] = field(default_factory=dict)
    n_val: int | None = None
    selected: str | None = None


def number(value: Any, digits: int) -> str:
    """With thousands separators and so many decimals; a dash for a number that was not computed."""
    return ABSENT if pd.isna(value) else f"{float(value):,.{digits}f}"


def accuracy(value: float, n: int) -> str:
    """An accuracy in percent, with the decimals that `n` images can fill."""
    return number(value, 1 if n < 1000 else 2)


def accuracy_cell(value: Any, n: int) -> Cell:
    """A share in percent of `n` images, an accuracy for example, with its Wilson 95% interval."""
    if pd.isna(value):
        return Cell(ABSENT)
    low, high = percent_interval(float(value), n)
    return Cell(accuracy(value, n), f"[{accuracy(low, n)}, {accuracy(high, n)}]")


def operations(macs: Any) -> str:
    """Multiply-accumulates with two decimals and a decimal prefix: 19.13 G."""
    if pd.isna(macs):
        return ABSENT
    scale, prefix = next(((scale, prefix) for scale, prefix in _SI if macs >= scale), (1, ""))
    return f"{macs / scale:.2f} {prefix}" if prefix else f"{macs:.0f}"


def columns(frame: pd.DataFrame, extras: Extras) -> list[Column]:
    """The columns for these rows: accuracies that no row has are left out."""
    return [
        *_identity(extras),
        Column("test images", lambda row: Cell(number(row["n_test"], 0))),
        *_held_out(extras),
        *(_share_column(f"{_attack(name)} (%)", name) for name in accuracy_columns(frame)),
        _share_column("stability (%)", "stability"),
        Column("local Lipschitz", lambda row: Cell(number(row["lipschitz"], 2))),
        Column("training (s)", lambda row: Cell(number(row["train_seconds"], 0))),
    ]


def html_table(group: Group, shown: list[Column], selected: str | None, caption: str) -> Markup:
    """The rows of one group in a box that scrolls by itself; the row of the run `selected` at `best` is marked."""
    head = element("tr", *(element("th", column.heading, scope="col", class_=_kind(column)) for column in shown))
    body = [_html_row(row, shown, selected) for row in group.rows.to_dict("records")]
    table = element("table", element("thead", head), element("tbody", *body))
    # outside the box: a caption inside it would scroll away with the columns
    title = element("p", caption, class_="caption")
    return joined(title, element("div", table, class_="scroll", role="region", aria_label=caption, tabindex="0"))


def markdown_table(frame: pd.DataFrame, extras: Extras | None = None) -> str:
    """Every evaluation of `frame`, results.csv's columns, as Markdown: one table a group of comparable rows."""
    extras = extras or Extras()
    found = groups(frame)
    return "\n\n".join(
        f"{plain(str(group))}\n\n{_markdown_group(group, columns(group.rows, extras))}" for group in found
    )


def _identity(extras: Extras) -> list[Column]:
    numbered = [Column("no.", lambda row: Cell(str(extras.numbers.get(str(row["arch"]), ABSENT))))]
    shares = [Column("last stage's share (%)", lambda row: Cell(_last_share(row, extras.stage_shares)))]
    return [
        *(numbered if extras.numbers else []),
        _text_column("architecture", "arch"),
        _text_column("depths", "depths"),
        _text_column("widths", "widths"),
        Column("params", lambda row: Cell(number(row["params"], 0))),
        Column("MACs", lambda row: Cell(operations(row["macs"]))),
        *(shares if extras.stage_shares else []),
        Column("seed", lambda row: Cell(number(row["seed"], 0))),
        _text_column("checkpoint", "checkpoint"),
    ]


def _held_out(extras: Extras) -> list[Column]:
    if not extras.best_val:
        return []
    n = extras.n_val
    heading = f"held-out robust (%, n = {n or 'unrecorded'})"

    def cell(row: Row) -> Cell:
        value = extras.best_val.get(str(row["run_id"])) if row["checkpoint"] == "best" else None
        return accuracy_cell(value, n) if n else Cell(number(value, 1))

    return [Column(heading, cell)]


def _text_column(heading: str, name: str) -> Column:
    return Column(heading, lambda row: Cell(ABSENT if pd.isna(row[name]) else str(row[name])), numeric=False)


def _share_column(heading: str, name: str) -> Column:
    return Column(heading, lambda row: accuracy_cell(row[name], int(row["n_test"])))


def _attack(name: str) -> str:
    return name.removesuffix("_acc").replace("_", " ")


def _last_share(row: Row, stage_shares: Mapping[str, tuple[float, ...]]) -> str:
    shares = stage_shares.get(str(row["run_id"]))
    return number(100 * shares[-1], 1) if shares else ABSENT


def _html_row(row: Row, shown: list[Column], selected: str | None) -> Markup:
    marked = row["run_id"] == selected and row["checkpoint"] == "best"
    cells = [_html_cell(column, row, marked) for column in shown]
    return element("tr", *cells, class_="selected") if marked else element("tr", *cells)


def _html_cell(column: Column, row: Row, marked: bool) -> Markup:
    cell = column.cell(row)
    small = joined(" ", element("small", cell.small)) if cell.small else Markup()
    if column.heading == "architecture":  # what names the row to a screen reader
        return element("th", cell.text, " ★" if marked else "", scope="row")
    return element("td", cell.text, small, class_=_kind(column))


def _kind(column: Column) -> str:
    return "number" if column.numeric else "text"


def _markdown_group(group: Group, shown: list[Column]) -> str:
    rows = [[_text(column.cell(row)) for column in shown] for row in group.rows.to_dict("records")]
    return markdown(Grid([Heading(column.heading, column.numeric) for column in shown], rows))


def _text(cell: Cell) -> str:
    return f"{cell.text} {cell.small}".strip()
