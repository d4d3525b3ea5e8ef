"""The data loaders of a run, with each rank's share of every global batch."""

from typing import Any

import pytorch_lightning as pl
from torch.utils.data import DataLoader

from robust_arch.data import ImageSet, Splits, stratified
from robust_arch.data.batches import Batch, GlobalBatches, loader
from robust_arch.data.extra import ExtraImages
from robust_arch.data.streamed import StreamedImages


class StudyData(pl.LightningDataModule):
    """Training batches in an order decided by (seed, epoch); validation on at most `val_images` held-out images.

    steps: batches of an epoch, None for one pass. place: where the images are kept, as in `trainer.data`.
    """

    def __init__(
        self, splits: Splits, *, batch_size: int, drop_last: bool, val_images: int, seed: int, place: str = "auto",
        steps: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.train, self.batch_size, self.drop_last, self.seed = splits.train, batch_size, drop_last, seed
        self.place, self.steps, self.extra = place, steps, splits.extra
        self.val = splits.val.subset(stratified(splits.val.labels, min(val_images, len(splits.val)), seed=0))

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled anew each epoch."""
        batches: dict[str, Any] = {"shuffle": True, "drop_last": self.drop_last, "steps": self.steps}
        batches["keyed"] = isinstance(self.train.images, StreamedImages)
        if self.extra is not None:
            batches |= {"extra_size": len(self.extra), "extra_per_batch": self.extra.per_batch(self.batch_size)}
        return self._loader(self.train, self.extra, **batches)

    def val_dataloader(self) -> DataLoader[Batch]:
        """In order, every example once."""
        return self._loader(self.val, None, shuffle=False, drop_last=False)

    def _loader(self, images: ImageSet, extra: ExtraImages | None, **settings: Any) -> DataLoader[Batch]:
        trainer = self.trainer
        ranks: dict[str, Any] = {"rank": trainer.global_rank, "world_size": trainer.world_size} if trainer else {}
        batches = GlobalBatches(len(images), self.batch_size, seed=self.seed, **ranks, **settings)
        return loader(images, batches, trainer.strategy.root_device if trainer else None, self.place, extra)
