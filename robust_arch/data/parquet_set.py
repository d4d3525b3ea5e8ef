"""Images in parquet files, in the layout of the Hugging Face hub: a column of encoded images and one of labels."""

import hashlib
import json
import logging
import os
import threading
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from robust_arch.common.paths import cache_dir
from robust_arch.data.dataset import Dataset
from robust_arch.data.decoded import decoded, without_a_size
from robust_arch.data.encoded import EncodedImages
from robust_arch.data.image_decoding import MODES, Decoder
from robust_arch.data.image_folder import existing_folder
from robust_arch.data.imagenet import streamed
from robust_arch.data.images import ImageSet
from robust_arch.errors import InputError, invalid, require_choice, require_flag, require_integer

log = logging.getLogger(__name__)

TEST_PARTS = ("test", "validation", "valid", "val")
_COLUMNS = {"image": ("image", "img"), "label": ("label", "fine_label", "labels")}
_LAYOUT = "train-*.parquet and test-*.parquet or validation-*.parquet"
_READING = threading.Lock()  # so that threads next to each other do not read one group of rows each


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise InputError(
            "data: parquet files need the package pyarrow: install the extra `parquet`, like "
            "pip install 'robust-arch[parquet]'"
        ) from None
    return pyarrow.parquet


@dataclass(frozen=True, eq=False, kw_only=True)
class ParquetImages(EncodedImages):
    """Images in parquet files; the group of rows of an image is read with it, and the last group kept.

    Attributes:
        groups: file and number of every group of rows.
        starts: position of the first image of each group, ascending.
        column: of the images' bytes, like `image.bytes`.
    """

    groups: Sequence[tuple[Path, int]]
    starts: Sequence[int]
    column: str
    sampled: ClassVar[int] = 100  # each is read with its group of rows
    _last: dict[int, list[bytes | None]] = field(default_factory=dict, init=False)

    def name(self, position: int) -> str:
        """File and row."""
        group = bisect_right(self.starts, position) - 1
        path, _ = self.groups[group]
        first = next(start for (file, _), start in zip(self.groups, self.starts, strict=True) if file == path)
        return f"row {position - first} of {path}"

    def content(self, position: int) -> bytes:
        """Read the group of rows, unless it was the last one."""
        group = bisect_right(self.starts, position) - 1
        with _READING:
            if group not in self._last:
                rows = self._read(group)
                self._last.clear()
                self._last[group] = rows
            content = self._last[group][position - self.starts[group]]
        if content is None:
            raise InputError(f"data.root: {self.name(position)} cannot be read as an image: it holds no bytes")
        return content

    def _read(self, group: int) -> list[bytes | None]:
        path, number = self.groups[group]
        try:
            with _pyarrow().ParquetFile(path) as file:
                # without threads, which a process that decodes would have lost when it was forked
                (column,) = file.read_row_group(number, columns=[self.column], use_threads=False).flatten().columns
                rows: list[bytes | None] = column.to_pylist()
        except InputError:
            raise
        except Exception as error:  # pyarrow raises a dozen kinds for a damaged file
            raise InputError(f"data.root: {path} cannot be read: {' '.join(str(error).split())[:300]}") from None
        return rows

    def stamp(self) -> str:
        """Of every file's path, size and times of change."""
        digest = hashlib.blake2b(self.column.encode(), digest_size=12)
        for path in dict.fromkeys(path for path, _ in self.groups):
            stat = path.stat()
            digest.update(os.fsencode(path))
            digest.update(f"\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}\n".encode())
        return digest.hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": {}}


@dataclass(frozen=True, kw_only=True)
class ParquetSet(Dataset):
    """A data set that was downloaded as parquet files.

    Attributes:
        root: folder of the files.
        test_part: the part that is the test set; None for the first of TEST_PARTS that has files.
        image_column: None for `image` or `img`.
        label_column: None for `label`, `fine_label` or `labels`.
        image_size: side of the square images in pixels, as of an image folder; of crops, if streamed.
        channels: 3 (RGB) or 1 (grey).
        cache: folder for decoded arrays, by default the user's cache folder.
        stream: whether images are decoded each time they are used, as of ImageNet, and not once into memory.
        resize: if streamed, length of the shorter side before the centre is cropped; None for image_size * 8 / 7.
        workers: if streamed, processes that decode training batches; None for one per core, 0 for none.
    """

    root: str | None
    test_part: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    image_size: int | None = None
    channels: int = 3
    cache: str | None = None
    stream: bool = False
    resize: int | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.root is None:
            raise invalid("data.root", None, f"the folder that holds {_LAYOUT}")
        if self.test_part is not None:
            require_choice("data.test_part", self.test_part, TEST_PARTS)
        if type(self.channels) is not int or self.channels not in MODES:
            raise invalid("data.channels", self.channels, "3 (RGB) or 1 (grey)")
        require_flag("data.stream", self.stream)
        if self.stream and self.image_size is None:
            raise invalid("data.image_size", None, "the side of the crops in pixels, as data.stream is true")
        if self.stream and self.channels != 3:
            raise invalid("data.channels", self.channels, "3, as data.stream is true")
        require_integer("data.image_size", self.image_size, 1, optional=True)
        require_integer("data.resize", self.resize, self.image_size or 1, optional=True)
        require_integer("data.workers", self.workers, 0, optional=True)

    def as_recorded(self) -> "ParquetSet":
        """With the cache folder and the cores of this user; the images are read from the root that the file names."""
        return replace(self, cache=None, workers=None)

    def read(self) -> tuple[ImageSet, ImageSet]:
        """Both parts, decoded once into memory or, if streamed, when they are used."""
        parquet, root = _pyarrow(), existing_folder(self.root, _LAYOUT)
        found = {part: _files(root, part) for part in ("train", *TEST_PARTS)}
        test_part = self.test_part or next((part for part in TEST_PARTS if found[part]), TEST_PARTS[0])
        for part in ("train", test_part):
            if not found[part]:
                allowed = f"a folder that holds {_LAYOUT}; there is no {part}-*.parquet in it"
                raise invalid("data.root", str(root), allowed)
        train, test = (self._part(parquet, found[part]) for part in ("train", test_part))
        names = _class_names(parquet, found["train"][0], self._column_of(parquet, found["train"][0], "label"))
        num_classes = max(names, *(int(images.labels.max()) + 1 for images in (train, test)))
        for images in (train, test):
            if images.labels.min() < 0:
                hint = f"; {test_part} may be without labels: set data.test_part" * (images is test)
                raise InputError(f"data.root: {images.name(0)} and others: expected labels of at least 0{hint}")
        sets = self._sets(train, test, num_classes)
        log.info("%s in %s | train: %s | %s: %s", self.name, root, sets[0].reading, test_part, sets[1].reading)
        return sets

    def _sets(self, train: ParquetImages, test: ParquetImages, num_classes: int) -> tuple[ImageSet, ImageSet]:
        if self.stream:
            side = self.image_size or 0
            how = (num_classes, side, self.resize or round(side * 8 / 7), self.workers)
            return streamed(train, *how), streamed(test, *how)
        decoder = Decoder(self.channels, self.image_size)
        cache = Path(self.cache).expanduser() if self.cache else cache_dir() / "parquet"
        in_memory = decoded(train, decoder, num_classes, cache), decoded(test, decoder, num_classes, cache)
        shapes = [part.image_shape for part in in_memory]
        if shapes[0] != shapes[1]:
            raise without_a_size(self.image_size, f"train has {shapes[0]} and test {shapes[1]}")
        return in_memory

    def _column_of(self, parquet: Any, path: Path, kind: str) -> str:
        """The name of the column of images or labels in a file."""
        given = self.image_column if kind == "image" else self.label_column
        names = _schema(parquet, path).names
        columns = [name for name in ((given,) if given else _COLUMNS[kind]) if name in names]
        if not columns:
            raise invalid(f"data.{kind}_column", given, f"a column of {path.name}: {', '.join(names)}")
        return columns[0]

    def _part(self, parquet: Any, files: Sequence[Path]) -> ParquetImages:
        image, label = (self._column_of(parquet, files[0], kind) for kind in ("image", "label"))
        groups, starts, labels, total = [], [], [], 0
        for path in files:
            try:
                with parquet.ParquetFile(path) as file:
                    for number in range(file.num_row_groups):
                        groups.append((path, number))
                        starts.append(total)
                        total += file.metadata.row_group(number).num_rows
                    labels.append(file.read(columns=[label], use_threads=False).column(label).to_numpy())
                    column = file.schema_arrow.field(image).type
            except Exception as error:  # pyarrow raises a dozen kinds for a damaged file
                raise InputError(f"data.root: {path} cannot be read: {' '.join(str(error).split())[:300]}") from None
            if labels[-1].dtype.kind not in "iu":  # floats where some are missing
                raise InputError(f"data.root: column {label} of {path}: expected one integer per image")
        if not total:
            raise invalid("data.root", str(files[0]), "at least one image")
        nested = f"{image}.bytes" if column.num_fields else image
        return ParquetImages(
            labels=np.concatenate(labels).astype(np.int64), groups=groups, starts=starts, column=nested
        )


def _files(root: Path, part: str) -> list[Path]:
    return sorted(
        path for path in root.glob(f"{part}*.parquet") if path.stem == part or path.stem.startswith(f"{part}-")
    )


def _schema(parquet: Any, path: Path) -> Any:
    try:
        return parquet.read_schema(path)
    except Exception as error:
        raise InputError(f"data.root: {path} cannot be read: {' '.join(str(error).split())[:300]}") from None


def _class_names(parquet: Any, path: Path, label: str) -> int:
    """The number of classes that the file itself names, 0 if it names none."""
    try:
        about = json.loads((_schema(parquet, path).metadata or {})[b"huggingface"])
        return len(about["info"]["features"][label]["names"])
    except (KeyError, TypeError, ValueError):
        return 0
