"""Batches by index: slices of tensors in memory, divided over devices without duplicates."""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from robust_arch.common.randomness import derive, example_keys
from robust_arch.data.extra import ExtraImages
from robust_arch.data.images import ImageSet
from robust_arch.data.streamed import StreamedImages

Batch = tuple[Tensor, Tensor, Tensor]

PLACES = ("auto", "device", "stream")
_SHARE_OF_DEVICE = 0.25  # of a GPU's free memory that images may take; the rest is for activations


class IndexedImages(Dataset[Batch]):
    """Whole batches, indexed on `device`: images (B, C, H, W) uint8, labels (B,), positions (B,).

    Positions from the size of the set on are those of the extra images, which are read from where they are.
    """

    def __init__(self, images: Tensor, labels: Tensor, device: torch.device, extra: ExtraImages | None = None) -> None:
        self.images, self.labels, self.device, self.extra = images.to(device), labels.to(device), device, extra

    def __getitem__(self, index: Tensor) -> Batch:
        if self.extra is None:
            here = self._moved(index)
            return self.images[here], self.labels[here], here
        own = int((index < len(self)).sum())  # they come first
        here = self._moved(index[:own])
        images, labels = map(self._moved, self.extra.take(index[own:] - len(self)))
        return torch.cat([self.images[here], images]), torch.cat([self.labels[here], labels]), self._moved(index)

    def _moved(self, values: Tensor) -> Tensor:
        # a GPU fetches pinned memory by itself; otherwise the host would wait for the step before
        return values.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else values

    def __len__(self) -> int:
        return len(self.images)


class StreamedBatches(Dataset[Batch]):
    """The same of images that are decoded on access, on the host.

    Where positions come with keys, as two rows, an image is a random crop that its key decides.
    """

    def __init__(self, images: StreamedImages, labels: Tensor, extra: ExtraImages | None = None) -> None:
        self.images, self.labels, self.extra = images, labels, extra

    def __getitem__(self, index: Tensor) -> Batch:
        positions = index if index.ndim == 1 else index[0]
        own = positions[positions < len(self)]
        images = self.images[own] if index.ndim == 1 else self.images.random_crops(own, index[1, : len(own)])
        labels = self.labels[own]
        if self.extra is None:
            return images, labels, positions
        extra_images, extra_labels = self.extra.take(positions[len(own) :] - len(self))
        return torch.cat([images, extra_images]), torch.cat([labels, extra_labels]), positions

    def __len__(self) -> int:
        return len(self.images)


class GlobalBatches(Sampler[Tensor]):
    """Positions of each global batch, of which this rank gets every `world_size`-th example.

    All ranks get the same number of batches; in the last one a rank's share may be empty. With `shuffle` the order
    is a permutation that (seed, epoch) determines; Lightning calls `set_epoch`.

    Extra examples, if any, have the positions from `size` on and come last in each batch; which ones is drawn by (seed,
    epoch, batch), with replacement. With them, or with `steps`, every batch is whole: where an epoch's batches exceed
    one pass over the set, a further permutation follows within the epoch.

    Args:
        size: of the set.
        batch_size: of a global batch, extra examples included.
        shuffle: False is the order of the set.
        drop_last: whether the number of batches of one pass is rounded down.
        seed: of the orders.
        rank: of this process.
        world_size: number of processes.
        steps: batches of an epoch; None is one pass over the set.
        extra_size: number of extra examples to draw from.
        extra_per_batch: extra examples of each batch.
        keyed: whether a second row has a key per example, drawn by (seed, epoch, batch), for its random crop.
    """

    def __init__(
        self, size: int, batch_size: int, *, shuffle: bool, drop_last: bool, seed: int = 0, rank: int = 0,
        world_size: int = 1, steps: int | None = None, extra_size: int = 0, extra_per_batch: int = 0,
        keyed: bool = False,
    ) -> None:  # fmt: skip
        self.size, self.shuffle, self.drop_last, self.steps, self.keyed = size, shuffle, drop_last, steps, keyed
        self.extra_size, self.extra_per_batch = extra_size, extra_per_batch
        self.own_per_batch = batch_size - extra_per_batch
        self.seed, self.rank, self.world_size, self.epoch, self.begin = seed, rank, world_size, 0, 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch whose order the next iteration follows."""
        self.epoch = epoch

    def skip(self, batches: int) -> None:
        """Let the next iteration, and no later one, leave out this many batches at its beginning."""
        self.begin = batches

    def __len__(self) -> int:
        if self.steps is not None:
            return self.steps
        return self.size // self.own_per_batch if self.drop_last else -(-self.size // self.own_per_batch)

    def __iter__(self) -> Iterator[Tensor]:
        order = lru_cache(maxsize=1)(self._order)  # of one pass at a time
        begin, self.begin = self.begin, 0
        for number in range(begin, len(self)):
            start, stop = number * self.own_per_batch, (number + 1) * self.own_per_batch
            if self.steps is None and not self.extra_per_batch:
                stop = min(stop, self.size)  # the last batch may be incomplete
            parts = []
            while start < stop:
                done, offset = divmod(start, self.size)
                parts.append(order(done)[offset : offset + stop - start])
                start += len(parts[-1])
            batch = np.concatenate([*parts, self.size + self._extra(number)])
            index = torch.from_numpy(batch[self.rank :: self.world_size].copy())
            stream = derive(self.seed, "crop", self.epoch, number)
            yield torch.stack([index, example_keys(stream, index)]) if self.keyed else index

    def _order(self, done: int) -> np.ndarray:
        """All positions of the set, after so many passes of this epoch."""
        if not self.shuffle:
            return np.arange(self.size)
        passes = (done,) if done else ()
        return np.random.default_rng(derive(self.seed, "order", self.epoch, *passes)).permutation(self.size)

    def _extra(self, number: int) -> np.ndarray:
        """The extra examples of this batch of the epoch, counted from 0."""
        if not self.extra_per_batch:
            return np.empty(0, dtype=np.int64)
        draws = np.random.default_rng(derive(self.seed, "extra", self.epoch, number))
        return draws.integers(self.extra_size, size=self.extra_per_batch)


class _LoaderWithProcesses(DataLoader[Batch]):
    """Takes the first positions when the first batch is asked for, not before.

    Lightning iterates before it sets the epoch and before a resumed epoch skips the batches that are done.
    """

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        yield from super().__iter__()


def loader(
    images: ImageSet, batches: GlobalBatches, device: torch.device | None = None, place: str = "auto",
    extra: ExtraImages | None = None,
) -> DataLoader[Batch]:  # fmt: skip
    """A DataLoader that yields one `Batch` for each index tensor of `batches`.

    Batches with keys of images that are decoded on access are made in processes of their own, others in this one.

    device: None is the CPU. place: `device` keeps all images on the device, `stream` indexes batches on the host and
    moves them, `auto` is the first if the images fit. extra: the images at the positions after the set's own; they stay
    where they are.
    """
    device = device or torch.device("cpu")
    if isinstance(images.images, StreamedImages):
        return _LoaderWithProcesses(
            StreamedBatches(images.images, images.labels, extra),
            sampler=batches,
            batch_size=None,
            pin_memory=device.type == "cuda",
            num_workers=images.images.workers if batches.keyed else 0,
        )
    if place == "auto" and device.type != "cpu":
        fit = images.images.nbytes <= _SHARE_OF_DEVICE * torch.cuda.mem_get_info(device)[0]
        place = "device" if fit else "stream"
    home = torch.device("cpu") if place == "stream" else device
    pinned = place == "stream" and device.type == "cuda"
    return DataLoader(
        IndexedImages(images.images, images.labels, home, extra), sampler=batches, batch_size=None, pin_memory=pinned
    )
