"""Batches by index: whole batches are slices of tensors in memory, shared out over devices without duplicates."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from robust_arch.data.images import ImageSet
from robust_arch.randomness import derive

Batch = tuple[Tensor, Tensor, Tensor]


class IndexedImages(Dataset[Batch]):
    """A whole batch at a time: images (B, C, H, W) uint8, labels (B,), positions in the set (B,)."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images

    def __getitem__(self, index: Tensor) -> Batch:
        return self.images.images[index], self.images.labels[index], index

    def __len__(self) -> int:
        return len(self.images)


class GlobalBatches(Sampler[Tensor]):
    """Positions of each global batch, of which this rank gets every `world_size`-th example.

    All ranks see the same number of batches; in the last one a rank's share may be empty. With `shuffle` the order
    is a permutation that (seed, epoch) decides; Lightning calls `set_epoch`.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        *,
        shuffle: bool,
        drop_last: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.size, self.batch_size, self.shuffle, self.drop_last = size, batch_size, shuffle, drop_last
        self.seed, self.rank, self.world_size, self.epoch = seed, rank, world_size, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration follows."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size // self.batch_size if self.drop_last else -(-self.size // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        order = np.arange(self.size)
        if self.shuffle:
            order = np.random.default_rng(derive(self.seed, "order", self.epoch)).permutation(self.size)
        for number in range(len(self)):
            batch = order[number * self.batch_size : (number + 1) * self.batch_size]
            yield torch.from_numpy(batch[self.rank :: self.world_size].copy())


def loader(images: ImageSet, batches: GlobalBatches) -> DataLoader[Batch]:
    """A DataLoader that yields one `Batch` for each index tensor of `batches`, in this process."""
    return DataLoader(IndexedImages(images), sampler=batches, batch_size=None)
