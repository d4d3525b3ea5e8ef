"""The rows of a study as a table: one description of the columns, for the static tables and for the explorer."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any

import pandas as pd

from robust_arch.analysis.formatting import ABSENT, accuracy, number, operations
from robust_arch.analysis.groups import accuracy_columns
from robust_arch.common.statistics import percent_interval

Row = dict[Hashable, Any]
ARCHITECTURE = "architecture"
LAST_SHARE = "last stage's share (%)"
SEED = "seed"
WORST_CASE = "worst case (%)"


@dataclass(frozen=True)
class Cell:
    """The content of a cell: a text, and small print after it."""

    text: str
    small: str = ""


@dataclass(frozen=True)
class Summary:
    """The cell of an architecture, which summarises its runs.

    Attributes:
        cell: what is shown.
        value: the number that it is sorted by; None for text.
        sd: standard deviation over the runs; None where it is no mean of several.
    """

    cell: Cell
    value: float | None
    sd: float | None = None


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        heading: of the column.
        cell: of a row of results.csv.
        value: the number that a row is sorted by; None for a column of text.
        text: a mean of such numbers as text, given a row that it is over; None for a column without means.
    """

    heading: str
    cell: Callable[[Row], Cell]
    value: Callable[[Row], float | None] | None = None
    text: Callable[[float, Row], str] | None = None

    @property
    def kind(self) -> str:
        """`text` or `number`, which decides how it is aligned."""
        return "text" if self.value is None else "number"

    @property
    def names_row(self) -> bool:
        """Whether its cells name their rows, for a screen reader."""
        return self.heading == ARCHITECTURE

    def over(self, rows: Sequence[Row]) -> Summary:
        """The runs of one architecture: what they have in common, else the mean; of seeds, how many there are."""
        values = [value for row in rows if self.value and (value := self.value(row)) is not None]
        if self.heading == SEED:
            return Summary(Cell(str(len(rows))), len(rows))
        if len(values) > 1 and self.text:
            mean, sd = fmean(values), stdev(values)
            return Summary(Cell(self.text(mean, rows[0]), f"± {self.text(sd, rows[0])}"), mean, sd)
        cells = list(dict.fromkeys(map(self.cell, rows)))
        return Summary(cells[0] if len(cells) == 1 else Cell(ABSENT), values[0] if values else None)


@dataclass(frozen=True)
class Extras:
    """What a table adds to results.csv.

    Attributes:
        stage_shares: run_id to the stages' shares of their parameters, in [0, 1].
        best_val: run_id to robust accuracy in percent on held-out images.
        best_weights: run_id to the weights that have it, raw if it is missing.
        n_val: number of held-out images.
        selected: the run_id to mark.
    """

    stage_shares: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    best_val: Mapping[str, float] = field(default_factory=dict)
    best_weights: Mapping[str, str] = field(default_factory=dict)
    n_val: int | None = None
    selected: str | None = None

    def was_held_out(self, row: Mapping[Hashable, Any]) -> bool:
        """Whether a row is of the epoch and weights that held-out images selected."""
        return bool(row["checkpoint"] == "best" and row["weights"] == self.best_weights.get(str(row["run_id"]), "raw"))

    def is_marked(self, row: Mapping[Hashable, Any]) -> bool:
        """Whether a row is the selected one."""
        return row["run_id"] == self.selected and self.was_held_out(row)


def accuracy_cell(value: Any, n: float) -> Cell:
    """A percentage of `n` images, such as an accuracy, with its Wilson 95% interval."""
    if pd.isna(value) or pd.isna(n):
        return Cell(ABSENT)
    low, high = percent_interval(float(value), int(n))
    return Cell(accuracy(value, n), f"[{accuracy(low, n)}, {accuracy(high, n)}]")


def last_share(row: Mapping[Hashable, Any], stage_shares: Mapping[str, tuple[float, ...]]) -> float | None:
    """The last stage's share of the stages' parameters in percent, None where unrecorded."""
    shares = stage_shares.get(str(row["run_id"]))
    return 100 * shares[-1] if shares else None


def columns(frame: pd.DataFrame, extras: Extras) -> list[Column]:
    """The columns for these rows, without accuracies that no row has."""

    def share(row: Row) -> float | None:
        return last_share(row, extras.stage_shares)

    # the worst case comes last; in the table it is beside the name
    scores = [_share_column(accuracy_heading(name), name) for name in accuracy_columns(frame)]
    last = Column(LAST_SHARE, lambda row: Cell(number(share(row), 1)), share)
    return [
        text_column(ARCHITECTURE, "arch"),
        *scores[-1:],
        Column(SEED, lambda row: Cell(number(row["seed"], 0)), _value_of("seed")),
        text_column("depths", "depths"),
        text_column("widths", "widths"),
        _number_column("params", "params"),
        Column("MACs", lambda row: Cell(operations(row["macs"])), _value_of("macs")),
        *([last] if extras.stage_shares else []),
        text_column("checkpoint", "checkpoint"),
        *([text_column("weights", "weights")] if (frame["weights"].dropna() != "raw").any() else []),
        _number_column("test images", "n_test"),
        *([_held_out(extras)] if extras.best_val else []),
        *scores[:-1],
        _share_column("stability (%)", "stability"),
        _number_column("local Lipschitz", "lipschitz", digits=2),
        _number_column("training (s)", "train_seconds"),
    ]


def accuracy_heading(name: str) -> str:
    """The heading of a column of accuracies of results.csv, like `pgd20_acc`."""
    return f"{name.removesuffix('_acc').replace('_', ' ')} (%)"


def text_column(heading: str, name: str) -> Column:
    """A column of results.csv as text."""
    return Column(heading, lambda row: Cell(ABSENT if pd.isna(row[name]) else str(row[name])))


def _held_out(extras: Extras) -> Column:
    n = extras.n_val
    heading = f"held-out robust (%, n = {n or 'unrecorded'})"

    def value(row: Row) -> float | None:
        return extras.best_val.get(str(row["run_id"])) if extras.was_held_out(row) else None

    return Column(
        heading,
        lambda row: accuracy_cell(value(row), n) if n else Cell(number(value(row), 1)),
        value,
        lambda mean, _: number(mean, 1),
    )


def _number_column(heading: str, name: str, digits: int = 0) -> Column:
    measured = (lambda mean, _: number(mean, digits)) if name in ("lipschitz", "train_seconds") else None
    return Column(heading, lambda row: Cell(number(row[name], digits)), _value_of(name), measured)


def _share_column(heading: str, name: str) -> Column:
    return Column(
        heading,
        lambda row: accuracy_cell(row[name], row["n_test"]),
        _value_of(name),
        lambda mean, row: accuracy(mean, row["n_test"]),
    )


def _value_of(name: str) -> Callable[[Row], float | None]:
    return lambda row: None if pd.isna(row[name]) else float(row[name])
