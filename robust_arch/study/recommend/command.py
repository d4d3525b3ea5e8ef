"""What the command reads and writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robust_arch.common.files import write_rows
from robust_arch.errors import invalid
from robust_arch.study.recommend.recommendation import Recommendation
from robust_arch.study.recommend.wording import COLUMNS, table


def studies_in(results_dir: Path) -> list[str]:
    """The names of all studies in a folder.

    Raises:
        InputError: if there is none.
    """
    found = [path.parent.name for name in ("runs", "results.csv") for path in sorted(results_dir.glob(f"*/{name}"))]
    if not found:
        raise invalid("--from", None, f"a study by name or path; {results_dir} has none")
    return list(dict.fromkeys(found))


def read_conditions(texts: Sequence[str]) -> dict[str, str]:
    """COLUMN=VALUE texts as a mapping.

    Raises:
        InputError: for a text without a column.
    """
    pairs = [text.partition("=") for text in texts]
    for text, (column, _, _) in zip(texts, pairs, strict=True):
        if "=" not in text or not column:
            raise invalid("--where", text, "COLUMN=VALUE, like objective=trades")
    return {column: value for column, _, value in pairs}


def write_recommendation(found: Recommendation, folder: Path) -> Path:
    """Write recommend.csv with every number; returns the file."""
    path = folder / "recommend.csv"
    write_rows(path, COLUMNS, table(found))
    return path
