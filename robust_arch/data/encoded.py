"""Image files that are read one at a time, wherever they are kept."""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from robust_arch.data.folder_listing import Listing
from robust_arch.errors import InputError


@dataclass(frozen=True, eq=False, kw_only=True)
class EncodedImages(ABC):
    """The image files of one part of a data set, in order.

    Attributes:
        labels: (N,) int64.
        noted: number of images by what is unusual about their place or name.
        skipped: number of files that are not images of the set, by reason.
    """

    labels: np.ndarray
    noted: Mapping[str, int] = field(default_factory=dict)
    skipped: Mapping[str, int] = field(default_factory=dict)
    sampled: ClassVar[int] = 1000  # files of a fingerprint, which must not take a pass over 150 GB

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def name(self, position: int) -> str:
        """What errors call an image."""

    @abstractmethod
    def content(self, position: int) -> bytes:
        """The bytes of an image file.

        Raises:
            InputError: if it cannot be read.
        """

    @abstractmethod
    def stamp(self) -> str:
        """Changes whenever a file is touched; without reading any."""

    @cached_property
    def fingerprint(self) -> bytes:
        """Of all labels, and the content of evenly spaced files; it does not depend on where they are."""
        digest = hashlib.blake2b(self.labels.tobytes(), digest_size=8)
        for position in np.unique(np.linspace(0, len(self) - 1, self.sampled).astype(np.int64)).tolist():
            digest.update(self.content(position))
        return digest.digest()


@dataclass(frozen=True, eq=False, kw_only=True)
class FileImages(EncodedImages):
    """Images in files of their own. paths: (N,) bytes, as there can be millions."""

    paths: np.ndarray

    @classmethod
    def listed(cls, listing: Listing) -> "FileImages":
        """The images of a folder."""
        paths, labels = zip(*listing.files, strict=True)
        return cls(
            paths=_as_bytes(paths), labels=np.array(labels), noted=dict(listing.noted), skipped=dict(listing.skipped)
        )

    def name(self, position: int) -> str:
        """Its path."""
        return os.fsdecode(self.paths[position])

    def content(self, position: int) -> bytes:
        """Read the file."""
        try:
            return Path(self.name(position)).read_bytes()
        except OSError as error:
            raise InputError(f"data.root: {self.name(position)} cannot be read as an image: {error.strerror}") from None

    def stamp(self) -> str:
        """Of every file's path, size and times of change."""
        digest = hashlib.blake2b(digest_size=12)
        for path in self.paths.tolist():
            stat = os.stat(path)  # noqa: PTH116  (paths are bytes)
            digest.update(path)
            # the second time also reveals a file that was replaced by one of the same age
            digest.update(f"\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}\n".encode())
        return digest.hexdigest()


def _as_bytes(paths: Sequence[Path]) -> np.ndarray:
    return np.array([os.fsencode(path) for path in paths])
