"""metrics.csv: one row an epoch, appended; cut back to the checkpoint when a run is resumed."""

import csv
import io
import math
from pathlib import Path

from robust_arch.files import write_text


def append_row(path: Path, row: dict[str, float]) -> None:
    """Append a row, with a header if the file is new; columns that an older header lacks are left out.

    The file is replaced as a whole: where the disk is full, the rows before it stay.
    """
    lines = _whole_lines(path)
    columns = next(csv.reader(lines), list(row))
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=columns, extrasaction="ignore")
    if not lines:
        writer.writeheader()
    writer.writerow(row)
    write_text(path, "".join(f"{line}\r\n" for line in lines) + text.getvalue())


def _whole_lines(path: Path) -> list[str]:
    """The lines without their ends; one that a killed process left half-written is none."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    return [line.removesuffix("\n") for line in lines if line.endswith("\n")]


def read_rows(path: Path) -> list[dict[str, float]]:
    """The whole rows, in order; a line that a killed process left half-written is not one."""
    rows = []
    for row in csv.DictReader(_whole_lines(path)):
        try:
            rows.append({name: float(value) for name, value in row.items()})
        except (TypeError, ValueError):
            continue
    return rows


def keep_epochs_before(path: Path, epoch: int) -> list[dict[str, float]]:
    """Drop the rows of `epoch` and later, which a resumed run writes again; returns what is kept."""
    kept = [row for row in read_rows(path) if row.get("epoch", math.inf) < epoch]
    text = io.StringIO()
    if kept:
        writer = csv.DictWriter(text, fieldnames=list(kept[0]))
        writer.writeheader()
        writer.writerows(kept)
    if path.is_file():
        write_text(path, text.getvalue())
    return kept
