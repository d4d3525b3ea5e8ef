"""Small files that are there whole or not at all."""

import csv
import io
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

MOST_OUTCOMES = 2**26
"""Bytes that a record's arrays may take: one per image and attack, and eight for its index; two million images."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, moved onto it in one step if the block succeeds and removed if not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno is not None and error.filename is None:  # a full disk shows in a write, which names no file
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace the file's content in one step."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """A CSV file with a header, in one step."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=columns)
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """JSON, indented, in one step; NaN is refused, as it is no JSON."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def read_json(path: Path | str) -> dict[str, Any] | None:
    """The object in the file, or None if there is no such file or it holds no whole object."""
    try:
        with open(path, "rb", buffering=0) as handle:  # noqa: PTH123  (a study is thousands of small files)
            content = _DECODER.decode(handle.read().decode())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def read_arrays(path: Path, most: int = MOST_OUTCOMES) -> dict[str, np.ndarray] | None:
    """The arrays of an .npz, or None if there is no such file, or it is torn or too large; objects are never unpickled.

    most: bytes of all arrays together. What is compressed may be a thousand times larger than its file.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if sum(entry.file_size for entry in arrays.zip.infolist()) > most:
                return None
            return {name: arrays[name] for name in arrays.files}
    except Exception:  # numpy raises a dozen kinds for a torn archive
        return None


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """A compressed .npz, in one step."""
    with replacing(path) as temporary, temporary.open("wb") as handle:
        np.savez_compressed(handle, allow_pickle=False, **arrays)
