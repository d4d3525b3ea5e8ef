"""metrics.csv: one row per epoch, cut back to the checkpoint when a run is resumed."""

import contextlib
import csv
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from robust_arch.common.files import write_text


def append_row(path: Path, row: dict[str, float]) -> None:
    """Append a row, with a header if the file is new; columns that an older header lacks are omitted.

    The file is replaced atomically, so that earlier rows survive a full disk.
    """
    lines = _whole_lines(path)
    columns = lines[0].split(",") if lines else list(row)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=columns, extrasaction="ignore")
    if not lines:
        writer.writeheader()
    writer.writerow(row)
    write_text(path, "".join(f"{line}\r\n" for line in lines) + text.getvalue())


def _whole_lines(path: Path) -> list[str]:
    """The lines, without one that a killed process left incomplete."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    return [line.removesuffix("\n") for line in lines if line.endswith("\n")]


def read_rows(path: Path) -> list[dict[str, float]]:
    """The complete rows, in order."""
    return [row for _, row in _numbered_rows(_whole_lines(path))]


def keep_epochs_before(path: Path, epoch: int) -> list[dict[str, float]]:
    """Drop the rows of `epoch` and later, which a resumed run writes again, and return the others.

    The remaining lines keep their bytes.
    """
    lines = _whole_lines(path)
    kept = [(place, row) for place, row in _numbered_rows(lines) if row.get("epoch", math.inf) < epoch]
    if path.is_file():
        places = [0, *(place for place, _ in kept)] if kept else []
        write_text(path, "".join(f"{lines[place]}\r\n" for place in places))
    return [row for _, row in kept]


def _numbered_rows(lines: Sequence[str]) -> Iterator[tuple[int, dict[str, float]]]:
    """Each row of numbers with its line number, counted from 0 for the header."""
    columns = lines[0].split(",") if lines else []
    for place, line in enumerate(lines[1:], start=1):
        cells = line.split(",")
        if len(cells) != len(columns):
            continue
        with contextlib.suppress(ValueError):
            yield place, dict(zip(columns, map(float, cells), strict=True))
