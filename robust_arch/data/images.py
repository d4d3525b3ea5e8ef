"""Images and labels in memory, and how a set of them is divided by class."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from robust_arch.errors import invalid
from robust_arch.randomness import derive


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images. images: (N, C, H, W) uint8 in [0, max_value]; labels: (N,) int64 below num_classes."""

    images: Tensor
    labels: Tensor
    num_classes: int
    max_value: int = 255

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != torch.uint8:
            raise invalid("images", (tuple(self.images.shape), str(self.images.dtype)), "uint8 of shape (N, C, H, W)")
        if self.labels.shape != self.images.shape[:1] or self.labels.dtype != torch.int64:
            raise invalid("labels", (tuple(self.labels.shape), str(self.labels.dtype)), "one int64 an image")
        if len(self) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < self.num_classes:
            raise invalid("labels", (int(self.labels.min()), int(self.labels.max())), f"in 0..{self.num_classes - 1}")
        if len(self) and int(self.images.max()) > self.max_value:
            raise invalid("images", int(self.images.max()), f"at most max_value = {self.max_value}")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def subset(self, index: Tensor) -> "ImageSet":
        """The images at these positions, in this order. index: (M,) int64."""
        return ImageSet(self.images[index], self.labels[index], self.num_classes, self.max_value)

    def to_unit(self, images: Tensor) -> Tensor:
        """uint8 images as float32 in [0, 1]."""
        return images.float() / self.max_value

    def fingerprint(self) -> str:
        """16 hex digits that change with any pixel, label, shape or scale; computed once."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.blake2b(digest_size=8)
        digest.update(repr((tuple(self.images.shape), self.num_classes, self.max_value)).encode())
        for tensor in (self.images, self.labels):
            digest.update(tensor.contiguous().numpy().data)  # as a buffer: no copy of the data set
        return digest.hexdigest()

    def channel_statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel, in units of images in [0, 1]."""
        levels = torch.arange(256, dtype=torch.float64) / self.max_value
        means, stds = [], []
        for channel in range(self.images.shape[1]):
            counts = torch.bincount(self.images[:, channel].flatten(), minlength=256).double()
            mean = (counts * levels).sum() / counts.sum()
            means.append(float(mean))
            stds.append(float(torch.sqrt((counts * (levels - mean) ** 2).sum() / counts.sum())))
        return means, stds


def stratified(labels: Tensor, count: int, seed: int) -> Tensor:
    """Positions of `count` examples, each class in its proportion, drawn by `seed`; ascending.

    Proportions that are not whole numbers are rounded by largest remainder. labels: (N,). Returns (count,) int64.
    """
    if not 0 < count <= len(labels):
        raise invalid("count", count, f"between 1 and the {len(labels)} examples there are")
    classes, sizes = np.unique(labels.numpy(), return_counts=True)
    quotas = sizes * count / len(labels)
    taken = np.floor(quotas).astype(int)
    by_remainder = np.argsort(taken - quotas, kind="stable")
    taken[by_remainder[: count - int(taken.sum())]] += 1
    chosen = []
    for label, amount in zip(classes, taken, strict=True):
        members = np.flatnonzero(labels.numpy() == label)
        generator = np.random.default_rng(derive(seed, "stratified", int(label)))
        chosen.append(generator.permutation(members)[:amount])
    return torch.from_numpy(np.sort(np.concatenate(chosen)).astype(np.int64))


def without(size: int, index: Tensor) -> Tensor:
    """The positions of 0..size-1 that are not in `index`, ascending."""
    keep = torch.ones(size, dtype=torch.bool)
    keep[index] = False
    return keep.nonzero()[:, 0]
