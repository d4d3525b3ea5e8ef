"""Labelled images, in memory or decoded on access, and their division by class."""

import hashlib
import heapq
import os
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robust_arch.common.randomness import derive
from robust_arch.data.reading import Reading
from robust_arch.data.streamed import StreamedImages
from robust_arch.errors import invalid

_SAMPLED = 10_000  # images of the statistics, 1.5 GB at 224x224


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images.

    Attributes:
        images: (N, C, H, W) uint8 in [0, max_value]; those that are decoded on access can be indexed like a tensor.
        labels: (N,) int64 below num_classes.
        num_classes: number of classes, including those without an image here.
        max_value: the value that means 1.
        reading: how files became these images, or the set that they are taken from; None if no files were read.
    """

    images: Tensor | StreamedImages
    labels: Tensor
    num_classes: int
    max_value: int = 255
    reading: Reading | None = None

    def __post_init__(self) -> None:
        self._check_images()
        labels = self.labels
        if labels.shape != self.images.shape[:1] or labels.dtype != torch.int64:
            raise invalid("labels", (tuple(labels.shape), str(labels.dtype)), "one int64 per image")
        if len(self) and not 0 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
            raise invalid("labels", (int(labels.min()), int(labels.max())), f"in 0..{self.num_classes - 1}")

    def _check_images(self) -> None:
        images = self.images
        if images.ndim != 4 or images.dtype != torch.uint8:
            raise invalid("images", (tuple(images.shape), str(images.dtype)), "uint8 of shape (N, C, H, W)")
        if isinstance(images, Tensor) and len(self) and int(images.max()) > self.max_value:
            raise invalid("images", int(images.max()), f"at most max_value = {self.max_value}")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def subset(self, index: Tensor) -> "ImageSet":
        """The images at these positions, in this order. index: (M,) int64."""
        images = self.images[index] if isinstance(self.images, Tensor) else self.images.subset(index)
        return replace(self, images=images, labels=self.labels[index])

    def to_unit(self, images: Tensor) -> Tensor:
        """uint8 images as float32 in [0, 1]."""
        return images.float() / self.max_value

    def fingerprint(self) -> str:
        """16 hex digits that change with any pixel, label, shape, scale or kind of conversion; computed once.

        Of images that are decoded on access only some evenly spaced files are read.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.blake2b(digest_size=8)
        digest.update(repr((tuple(self.images.shape), self.num_classes, self.max_value)).encode())
        if self.reading and self.reading.converted:
            digest.update(repr(sorted(self.reading.converted)).encode())
        for content in (self.images, self.labels):
            # a tensor as a buffer: no copy of the data set
            buffer = content.contiguous().numpy().data if isinstance(content, Tensor) else content.fingerprint()
            digest.update(buffer)
        return digest.hexdigest()

    def channel_statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel, in units of images in [0, 1].

        Of images that are decoded on access, 10,000 evenly spaced ones stand for all.
        """
        images = self.images
        if isinstance(images, StreamedImages):
            images = images[slice(None, None, -(-len(images) // _SAMPLED))]
        levels = torch.arange(256, dtype=torch.float64) / self.max_value
        means, stds = [], []
        for channel in range(images.shape[1]):
            counts = torch.bincount(images[:, channel].flatten(), minlength=256).double()
            mean = (counts * levels).sum() / counts.sum()
            means.append(float(mean))
            stds.append(float(torch.sqrt((counts * (levels - mean) ** 2).sum() / counts.sum())))
        return means, stds


@dataclass(frozen=True, eq=False)
class FloatImageSet(ImageSet):
    """Labelled images between the 256 levels of uint8, such as resized ones; to evaluate on, not to train on.

    Attributes:
        images: (N, C, H, W) float32 in [0, 1].
    """

    max_value: int = 1

    def _check_images(self) -> None:
        images = self.images
        if images.ndim != 4 or images.dtype != torch.float32:
            raise invalid("images", (tuple(images.shape), str(images.dtype)), "float32 of shape (N, C, H, W)")
        if isinstance(images, Tensor) and len(self):
            low, high = (float(bound) for bound in images.aminmax())
            if not (low >= 0 and high <= 1):  # false for NaN too
                raise invalid("images", (low, high), "numbers in [0, 1]; normalisation belongs inside the network")


def image_set(images: Any, labels: Any) -> ImageSet:
    """Labelled images from arrays or tensors.

    images: (N, C, H, W), uint8, or floating point in [0, 1], which become uint8 where that changes no value. labels:
    (N,) integers of at least 0; there are as many classes as the largest one needs.

    Raises:
        InputError: for other shapes, types or values, or no image.
    """
    pixels, classes = (_as_tensor(key, value) for key, value in (("images", images), ("labels", labels)))
    if classes.dtype == torch.bool or classes.is_floating_point() or classes.is_complex():
        raise invalid("labels", str(classes.dtype), "integers")
    if not pixels.numel() or not classes.numel():
        raise invalid("images", tuple(pixels.shape), "at least one image with its label")
    classes = classes.to(torch.int64)
    num_classes = int(classes.max()) + 1
    if not pixels.is_floating_point():
        return ImageSet(pixels, classes, num_classes)
    unit = pixels.to(torch.float32)
    found = FloatImageSet(unit, classes, num_classes)
    levels = (unit * 255).round().to(torch.uint8)
    return ImageSet(levels, classes, num_classes) if torch.equal(levels.float() / 255, unit) else found


def _as_tensor(key: str, value: Any) -> Tensor:
    try:
        return torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise invalid(key, type(value).__name__, f"an array or a tensor ({error})") from None


def stratified(labels: Tensor, count: int, seed: int) -> Tensor:
    """Positions of `count` examples, each class in its proportion, drawn by `seed`; ascending.

    Proportions that are not whole numbers are rounded by largest remainder. labels: (N,). Returns (count,) int64.
    """
    if not 0 < count <= len(labels):
        raise invalid("count", count, f"between 1 and the {len(labels)} examples there are")
    members = _shuffled_members(labels, seed, "stratified")
    quotas = np.array([len(positions) for positions in members.values()]) * count / len(labels)
    taken = np.floor(quotas).astype(int)
    by_remainder = np.argsort(taken - quotas, kind="stable")
    taken[by_remainder[: count - int(taken.sum())]] += 1
    chosen = [positions[:amount] for positions, amount in zip(members.values(), taken, strict=True)]
    return torch.from_numpy(np.sort(np.concatenate(chosen)).astype(np.int64))


def _shuffled_members(labels: Tensor, seed: int, purpose: str) -> dict[int, np.ndarray]:
    """The positions of each class, ascending by class, in an order drawn by `seed` for this purpose."""
    classes = labels.numpy()
    return {
        label: np.random.default_rng(derive(seed, purpose, label)).permutation(np.flatnonzero(classes == label))
        for label in np.unique(classes).tolist()
    }


def stratified_order(labels: Tensor, seed: int) -> Tensor:
    """All positions in an order, drawn by `seed`, of which any first part is stratified.

    Among the first n examples each class is less than one away from its share of n. Taking the largest remainders for
    each n, as `stratified` does, would not nest: a class can lose an example when n grows (the Alabama paradox). Here
    the j-th example of a class with share w is due at place ceil(j / w), may come from place floor((j - 1) / w) on, and
    the earliest due is taken (Tijdeman, "The chairman assignment problem", Discrete Mathematics 32, 1980).
    labels: (N,). Returns (N,) int64.
    """
    total, members = len(labels), _shuffled_members(labels, seed, "stratified_order")
    waiting = [(0, label, 0) for label in members]  # place from which it may come, class, number in the class
    ready: list[tuple[int, int, int]] = []  # place at which it is due, class, number in the class
    order = []
    for place in range(total):
        while waiting and waiting[0][0] <= place:
            _, label, number = heapq.heappop(waiting)
            heapq.heappush(ready, (-(-(number + 1) * total // len(members[label])), label, number))
        _, label, number = heapq.heappop(ready)
        order.append(members[label][number])
        if number + 1 < len(members[label]):
            heapq.heappush(waiting, ((number + 1) * total // len(members[label]), label, number + 1))
    return torch.tensor(np.array(order), dtype=torch.int64)


def without(size: int, index: Tensor) -> Tensor:
    """The positions of 0..size-1 that are not in `index`, ascending."""
    keep = torch.ones(size, dtype=torch.bool)
    keep[index] = False
    return keep.nonzero()[:, 0]


def require_memory(key: str, value: object, size: int) -> None:
    """Raise InputError, naming `key` and its value, if `size` bytes of images exceed the machine's memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory:
        needed, available = f"{size / 2**30:,.1f} GiB", f"{memory / 2**30:,.1f} GiB"
        raise invalid(key, value, f"images that fit into memory: these take {needed}, this machine has {available}")
