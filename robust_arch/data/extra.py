"""Extra labelled images, such as generated or pseudo-labelled ones, a fixed share of each training batch."""

import hashlib
import logging
import math
import mmap
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robust_arch.data.images import ImageSet
from robust_arch.errors import InputError, invalid, require_name

log = logging.getLogger(__name__)

MAX_VALUE = 255
_SAMPLED = 1000  # images of the fingerprint, which must not take a pass over 150 GB
_LONGEST_REASON = 300  # characters


@dataclass(frozen=True)
class MappedArray:
    """An array inside a file, of which only what is indexed is read.

    Another process gets its place in the file, not its content.

    Attributes:
        path: of the file.
        offset: of the first byte.
        shape: of the array, in C order.
        dtype: of its entries.
    """

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype(np.uint8))

    @cached_property
    def _array(self) -> np.ndarray:
        with self.path.open("rb") as handle:
            content = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        content.madvise(mmap.MADV_RANDOM)  # images are drawn at random: what lies beside them is not read
        return np.frombuffer(content, self.dtype, math.prod(self.shape), self.offset).reshape(self.shape)

    def __getitem__(self, index: Any) -> np.ndarray:
        return np.asarray(self._array[index])

    def __len__(self) -> int:
        return self.shape[0]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_array"}


@dataclass(frozen=True, eq=False)
class ExtraImages:
    """Images of the same shape and classes as the training set; none of them is held out or tested on.

    Attributes:
        images: (N, H, W, C) uint8 in [0, 255], in memory or mapped from a file.
        labels: (N,) integers.
        name: label in the records.
        file: name of the file, without its folder.
        fraction: of each batch, in (0, 1).
    """

    images: np.ndarray | MappedArray
    labels: np.ndarray
    name: str
    file: str
    fraction: float

    def __len__(self) -> int:
        return len(self.labels)

    def per_batch(self, batch_size: int) -> int:
        """How many images of each batch are extra ones.

        Raises:
            InputError: if a batch would have none, or no others.
        """
        count = round(self.fraction * batch_size)
        if not 0 < count < batch_size:
            allowed = f"a share of recipe.batch_size = {batch_size} that is at least one image and not all of them"
            raise invalid("extra.fraction", self.fraction, allowed)
        return count

    def take(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The images (B, C, H, W) uint8 and labels (B,) int64 at these positions. index: (B,) int64."""
        positions = index.numpy()
        images = torch.from_numpy(self.images[positions]).permute(0, 3, 1, 2).contiguous()
        return images, torch.from_numpy(self.labels[positions].astype(np.int64))

    def fingerprint(self) -> str:
        """16 hex digits of the shape, all labels, and the pixels of 1,000 evenly spaced images; computed once."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.blake2b(repr(tuple(self.images.shape)).encode(), digest_size=8)
        digest.update(np.ascontiguousarray(self.labels).data)
        sampled = np.unique(np.linspace(0, len(self) - 1, _SAMPLED).astype(np.int64))
        digest.update(np.ascontiguousarray(self.images[sampled]).data)
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class ExtraData(ABC):
    """A file of extra images; subclasses read it.

    Attributes:
        path: of the file.
        name: label in the records; None takes the file's name without its suffix.
        fraction: of each batch that is extra, in (0, 1).
    """

    path: str | None
    name: str | None = None
    fraction: float = 0.5

    def __post_init__(self) -> None:
        if not isinstance(self.path, str) or not self.path:
            raise invalid("extra.path", self.path, "the path of a file")
        if isinstance(self.fraction, bool) or not isinstance(self.fraction, float) or not 0 < self.fraction < 1:
            raise invalid("extra.fraction", self.fraction, "a number between 0 and 1, both excluded")
        require_name("extra.name", self.label)

    @property
    def label(self) -> str:
        """Its name in the records."""
        return Path(str(self.path)).stem if self.name is None else str(self.name)

    @abstractmethod
    def read(self, path: Path) -> tuple[np.ndarray | MappedArray, np.ndarray]:
        """Images (N, H, W, C) uint8 and labels (N,), any integers.

        Raises:
            InputError: with the reason, for a file of another form.
        """

    def refused(self, reason: object, allowed: str) -> InputError:
        """The error for a file that is not of the form `allowed`; the reason may quote the file."""
        line = "".join(each for each in " ".join(str(reason).split()) if each.isprintable())
        return invalid("extra.path", self.path, f"{allowed}; {line[:_LONGEST_REASON]}")

    def load(self, train: ImageSet) -> ExtraImages:
        """Read the file, or map it; its images must be of the shape and the classes of `train`.

        Raises:
            InputError: if they are not.
        """
        path = Path(os.path.expanduser(str(self.path)))  # noqa: PTH111  (pathlib's raises for an unknown user)
        if not path.is_file():
            raise invalid("extra.path", self.path, "a file; there is none")
        images, labels = self.read(path)
        channels, height, width = train.image_shape
        if train.max_value != MAX_VALUE or tuple(images.shape[1:]) != (height, width, channels):
            allowed = f"images of shape {(height, width, channels)} in 0..{train.max_value}, as the training set's"
            raise self.refused(f"these are {tuple(images.shape[1:])} in 0..{MAX_VALUE}", allowed)
        if not len(labels) or labels.min() < 0 or labels.max() >= train.num_classes:
            found = f"these are in {labels.min()}..{labels.max()}" if len(labels) else "there is none"
            raise self.refused(found, f"labels in 0..{train.num_classes - 1}")
        compact = labels.astype(np.min_scalar_type(train.num_classes - 1))
        extra = ExtraImages(images, compact, self.label, path.name, self.fraction)
        log.info("extra data %s: %s images of %s", extra.name, f"{len(extra):,}", path)
        return extra
