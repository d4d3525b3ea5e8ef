"""Where an imported study's numbers are from, kept beside them in provenance.json."""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Iterator
from pathlib import Path

from robust_arch.analysis.reading import folder_of
from robust_arch.common.files import read_json, write_json
from robust_arch.runs.fields import Count, Fields, Message, MisfitError, Positive

log = logging.getLogger(__name__)
_WIDTH = 80
_PICKED = {
    "test": "It was picked on the test set: numbers at `best` are optimistic.",
    "held-out": "It was picked on held-out images.",
    "none": "Nothing was picked.",
    "unknown": "On which images it was picked is not known.",
}


class Provenance(Fields):
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

    source: Message
    licence: Message
    best: Message
    selected_on: Message
    note: Message
    file: Message
    sha256: Message
    mapping: Message
    command: Message
    rows: Count
    left_out: Count
    train_images: Positive | None = None

    def write(self, folder: Path) -> None:
        """Replace provenance.json in a study's folder."""
        write_json(folder / "provenance.json", {"schema": 1, **self.plain()})

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


def provenance_of(study: Path) -> Provenance | None:
    """The provenance of a study by its folder or its results.csv; None for a study of this project's own runs.

    A file that does not fit is named in the log and counts as not there.
    """
    path = folder_of(study) / "provenance.json"
    if not path.is_file():
        return None
    try:
        return Provenance.read(read_json(path) or {})
    except MisfitError as misfit:
        log.warning("left out: %s: %s", path, misfit)
        return None
