"""The rows of a study's results.csv on the screen, as `robust-arch results` prints them."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from rich.table import Table
from rich.text import Text

from robust_arch.analysis.groups import GROUP_COLUMNS, groups
from robust_arch.analysis.published.provenance import provenance_of
from robust_arch.analysis.reading import read_results
from robust_arch.runs import StudyFolder

_MANY_ROWS = 100  # of a table on the screen; results.csv has them all


def results_tables(path: Path, *, mixed: bool, every_row: bool) -> Iterator[Table | str]:
    """Rebuild results.csv from the records, and show it; path: the study's folder, or a results.csv alone.

    Rows that may not be compared are in tables of their own, unless `mixed`.
    """
    frame = read_results(path)
    unchanged = path.is_file() or StudyFolder(path).is_only_a_table or StudyFolder(path).is_archived
    file = path if path.is_file() else StudyFolder(path).write_results(frame)
    tables = {"mixed: see recipe, threat and checkpoint": frame} if mixed else {}
    if not mixed:
        tables |= {str(group): group.rows.drop(columns=list(GROUP_COLUMNS)) for group in groups(frame)}
        if len(lost := frame[frame["clean_acc"].isna()]):
            tables["without numbers"] = lost
    for title, rows in tables.items():
        shown = rows if every_row else rows.head(_MANY_ROWS)
        yield _table(f"study {path.name}: {title}", shown)
        if len(shown) < len(rows):
            yield f"{len(rows) - len(shown):,} more rows; --all prints them, and the file has them"
    if provenance := provenance_of(path):
        yield provenance.text()
    yield f"{'read' if unchanged else 'written'}: {file}"


def _table(title: str, frame: pd.DataFrame) -> Table:
    """Rows of results.csv, without empty columns."""
    table = Table(title=Text(title), title_justify="left")
    shown = frame.drop(columns=["study", "family"]).dropna(axis="columns", how="all")
    for name in shown.columns:
        table.add_column(str(name), overflow="fold", no_wrap=name == "run_id")
    for values in shown.astype(object).where(shown.notna(), "").to_numpy():
        cells = (f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value) for value in values)
        table.add_row(*map(Text, cells))
    return table
