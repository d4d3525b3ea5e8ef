"""Where an imported study's numbers are from, kept beside them in provenance.json."""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from robust_arch.common.files import read_json, write_json
from robust_arch.runs import schema
from robust_arch.runs.schema import MisfitError

log = logging.getLogger(__name__)
_WIDTH = 80
_PICKED = {
    "test": "It was picked on the test set: numbers at `best` are optimistic.",
    "held-out": "It was picked on held-out images.",
    "none": "Nothing was picked.",
    "unknown": "On which images it was picked is not known.",
}


@dataclass(frozen=True)
class Provenance:
    """Where a study's numbers are from.

    Attributes:
        source: of the table.
        licence: of the table.
        best: what the checkpoint `best` means.
        selected_on: the images on which `best` was picked: test, held-out, none or unknown.
        note: anything else that a reader must know.
        file: the table's name.
        sha256: of the table.
        mapping: the name of the mapping.
        command: that imported it.
        rows: of the table that are in the study.
        left_out: rows of the table that are not.
        train_images: training images per epoch; None where that is not known.
    """

    source: str
    licence: str
    best: str
    selected_on: str
    note: str
    file: str
    sha256: str
    mapping: str
    command: str
    rows: int
    left_out: int
    train_images: int | None = None

    def write(self, folder: Path) -> None:
        """Replace provenance.json in a study's folder."""
        write_json(folder / "provenance.json", {"schema": 1, **asdict(self)})

    def sentences(self) -> Iterator[str]:
        """What a reader of the numbers must know."""
        yield f"Published results, not run by this project: {self.source}."
        yield f"Licence: {self.licence}."
        yield f"`best`: {self.best}. {_PICKED.get(self.selected_on, _PICKED['unknown'])}"
        if self.note != "none":
            yield f"Note: {self.note}."
        yield (
            "Worst case: the smallest accuracy of the attacks in the table, which is at least the worst case per image."
        )
        yield f"From {self.file} (SHA-256 {self.sha256[:12]}...): {self.rows:,} rows, {self.left_out:,} left out."

    def text(self) -> str:
        """The sentences in lines of at most 80 characters."""
        return "\n".join(textwrap.fill(each, _WIDTH, subsequent_indent="  ") for each in self.sentences())


_TEXTS = ("source", "licence", "best", "selected_on", "note", "file", "sha256", "mapping", "command")
_CHECK = schema.fields(
    {**dict.fromkeys(_TEXTS, schema.message), "rows": schema.count, "left_out": schema.count},
    {"train_images": schema.nullable(schema.positive)},
)


def provenance_of(study: Path) -> Provenance | None:
    """The provenance of a study by its folder or its results.csv; None for a study of this project's own runs.

    A file that does not fit is named in the log and counts as not there.
    """
    path = (study.parent if study.is_file() else study) / "provenance.json"
    if not path.is_file():
        return None
    content: Any = read_json(path)
    try:
        _CHECK(content)
    except MisfitError as misfit:
        log.warning("left out: %s: %s", path, misfit)
        return None
    return Provenance(**{each.name: content.get(each.name) for each in fields(Provenance)})
