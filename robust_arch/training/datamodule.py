"""The data loaders of a run, with each rank's share of every global batch."""

import pytorch_lightning as pl
from torch.utils.data import DataLoader

from robust_arch.data import ImageSet, Splits, stratified
from robust_arch.data.batches import Batch, GlobalBatches, loader


class StudyData(pl.LightningDataModule):
    """Training batches in an order decided by (seed, epoch); validation on at most `val_images` held-out images.

    place: where the images are kept, as in `trainer.data`.
    """

    def __init__(
        self, splits: Splits, *, batch_size: int, drop_last: bool, val_images: int, seed: int, place: str = "auto"
    ) -> None:
        super().__init__()
        self.train, self.batch_size, self.drop_last, self.seed = splits.train, batch_size, drop_last, seed
        self.place = place
        self.val = splits.val.subset(stratified(splits.val.labels, min(val_images, len(splits.val)), seed=0))

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled anew each epoch."""
        return self._loader(self.train, shuffle=True, drop_last=self.drop_last)

    def val_dataloader(self) -> DataLoader[Batch]:
        """In order, every example once."""
        return self._loader(self.val, shuffle=False, drop_last=False)

    def _loader(self, images: ImageSet, *, shuffle: bool, drop_last: bool) -> DataLoader[Batch]:
        trainer = self.trainer
        ranks = {"rank": trainer.global_rank, "world_size": trainer.world_size} if trainer else {}
        batches = GlobalBatches(
            len(images), self.batch_size, shuffle=shuffle, drop_last=drop_last, seed=self.seed, **ranks
        )
        return loader(images, batches, trainer.strategy.root_device if trainer else None, self.place)
