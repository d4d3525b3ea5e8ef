"""Small files, each of which is written in one step, so that a reader finds the old content or the new one."""

import csv
import io
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

MOST_OUTCOMES = 2**26
"""Most bytes of a record's arrays, per image 1 for each attack, 8 for its index, 4 for its label: 2 million images."""
_DECODER = json.JSONDecoder(parse_constant=int)  # int raises ValueError for NaN and Infinity, which JSON does not have


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, moved onto it in one step if the block succeeds and removed otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno is not None and error.filename is None:  # a write to a full disk fails without naming the file
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a CSV file with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=columns)
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write indented JSON; NaN and infinity raise ValueError."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path | str) -> dict[str, Any] | None:
    """The object in the file, or None if the file is missing or does not hold exactly one object."""
    try:
        with open(path, "rb", buffering=0) as handle:  # noqa: PTH123  (faster: a study has thousands of small files)
            content = _DECODER.decode(handle.read().decode())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def read_arrays(path: Path, most: int = MOST_OUTCOMES) -> "dict[str, np.ndarray] | None":
    """The arrays of an .npz, or None if the file is missing, damaged or too large; objects are never unpickled.

    most: bytes of all arrays together; they may be a thousand times larger than the compressed file.
    """
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as arrays:
            if sum(entry.file_size for entry in arrays.zip.infolist()) > most:
                return None
            return {name: arrays[name] for name in arrays.files}
    except Exception:  # numpy raises a dozen kinds for a damaged archive
        return None


def write_arrays(path: Path, arrays: "Mapping[str, np.ndarray]") -> None:
    """Write a compressed .npz."""
    import numpy as np

    with replacing(path) as temporary, temporary.open("wb") as handle:
        np.savez_compressed(handle, allow_pickle=False, **arrays)
