"""The test images that numbers are computed on."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from robust_arch.data import ImageSet, stratified


@dataclass(frozen=True)
class Examples:
    """A part of a test set. images: the part; index: (n,) its positions in the whole set, ascending."""

    images: ImageSet
    index: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, size: int, device: torch.device) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
        """Position of the batch, x (B, C, H, W) float32 in [0, 1], y (B,), index (B,); each example once, in order."""
        for start in range(0, len(self), size):
            where = slice(start, start + size)
            x = self.images.to_unit(self.images.images[where].to(device))
            yield where, x, self.images.labels[where].to(device), self.index[where].to(device)

    def subset(self, positions: Tensor) -> "Examples":
        """The examples at these ascending positions."""
        return Examples(self.images.subset(positions), self.index[positions])

    def sample(self, n: int) -> "Examples":
        """At most `n` of them, in the classes' proportions by a fixed seed."""
        return self if n >= len(self) else self.subset(stratified(self.images.labels, n, seed=0))


@lru_cache(maxsize=4)  # a sweep uses the same examples for every run
def select_examples(test: ImageSet, n: int | None) -> Examples:
    """The whole test set, or `n` of it in the classes' proportions by a fixed seed."""
    everything = Examples(test, torch.arange(len(test)))
    return everything if n is None else everything.sample(n)
