"""Batches by index: slices of tensors in memory, divided over devices without duplicates."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from robust_arch.common.randomness import derive
from robust_arch.data.images import ImageSet

Batch = tuple[Tensor, Tensor, Tensor]

PLACES = ("auto", "device", "stream")
_SHARE_OF_DEVICE = 0.25  # of a GPU's free memory that images may take; the rest is for activations


class IndexedImages(Dataset[Batch]):
    """Whole batches, indexed on `device`: images (B, C, H, W) uint8, labels (B,), positions in the set (B,)."""

    def __init__(self, images: ImageSet, device: torch.device) -> None:
        self.images, self.labels, self.device = images.images.to(device), images.labels.to(device), device

    def __getitem__(self, index: Tensor) -> Batch:
        # a GPU fetches pinned memory by itself; otherwise the host would wait for the step before
        here = index.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else index
        return self.images[here], self.labels[here], here

    def __len__(self) -> int:
        return len(self.images)


class GlobalBatches(Sampler[Tensor]):
    """Positions of each global batch, of which this rank gets every `world_size`-th example.

    All ranks get the same number of batches; in the last one a rank's share may be empty. With `shuffle` the order
    is a permutation that (seed, epoch) determines; Lightning calls `set_epoch`.
    """

    def __init__(
        self, size: int, batch_size: int, *, shuffle: bool, drop_last: bool, seed: int = 0, rank: int = 0,
        world_size: int = 1,
    ) -> None:  # fmt: skip
        self.size, self.batch_size, self.shuffle, self.drop_last = size, batch_size, shuffle, drop_last
        self.seed, self.rank, self.world_size, self.epoch, self.begin = seed, rank, world_size, 0, 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch whose order the next iteration follows."""
        self.epoch = epoch

    def skip(self, batches: int) -> None:
        """Let the next iteration, and no later one, leave out this many batches at its beginning."""
        self.begin = batches

    def __len__(self) -> int:
        return self.size // self.batch_size if self.drop_last else -(-self.size // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        order = np.arange(self.size)
        if self.shuffle:
            order = np.random.default_rng(derive(self.seed, "order", self.epoch)).permutation(self.size)
        begin, self.begin = self.begin, 0
        for number in range(begin, len(self)):
            batch = order[number * self.batch_size : (number + 1) * self.batch_size]
            yield torch.from_numpy(batch[self.rank :: self.world_size].copy())


def loader(
    images: ImageSet, batches: GlobalBatches, device: torch.device | None = None, place: str = "auto"
) -> DataLoader[Batch]:
    """A DataLoader that yields one `Batch` for each index tensor of `batches`, in this process.

    device: None is the CPU. place: `device` keeps all images on the device, `stream` indexes batches on the host and
    moves them, `auto` is the first if the images fit.
    """
    device = device or torch.device("cpu")
    if place == "auto" and device.type != "cpu":
        fit = images.images.nbytes <= _SHARE_OF_DEVICE * torch.cuda.mem_get_info(device)[0]
        place = "device" if fit else "stream"
    home = torch.device("cpu") if place == "stream" else device
    pinned = place == "stream" and device.type == "cuda"
    return DataLoader(IndexedImages(images, home), sampler=batches, batch_size=None, pin_memory=pinned)
