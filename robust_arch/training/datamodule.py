"""The loaders of a run, each rank's share of every global batch."""

import pytorch_lightning as pl
from torch.utils.data import DataLoader

from robust_arch.data import ImageSet, Splits, stratified
from robust_arch.data.batches import Batch, GlobalBatches, loader


class StudyData(pl.LightningDataModule):
    """Training batches in an order that (seed, epoch) decides; validation on at most `val_images` of the held-out.

    place: where the images lie, as of `trainer.data`.
    """

    def __init__(
        self, splits: Splits, *, batch_size: int, drop_last: bool, val_images: int, seed: int, place: str = "auto"
    ) -> None:
        super().__init__()
        self.train, self.batch_size, self.drop_last, self.seed = splits.train, batch_size, drop_last, seed
        self.place = place
        count = min(val_images, len(splits.val))
        self.val = splits.val.subset(stratified(splits.val.labels, count, seed=0))

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled anew each epoch."""
        return self._loader(self.train, shuffle=True, drop_last=self.drop_last)

    def val_dataloader(self) -> DataLoader[Batch]:
        """In order, every example once."""
        return self._loader(self.val, shuffle=False, drop_last=False)

    def _loader(self, images: ImageSet, *, shuffle: bool, drop_last: bool) -> DataLoader[Batch]:
        assigned = self.trainer
        rank, world_size = (assigned.global_rank, assigned.world_size) if assigned else (0, 1)
        batches = GlobalBatches(
            len(images),
            self.batch_size,
            shuffle=shuffle,
            drop_last=drop_last,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
        )
        device = assigned.strategy.root_device if assigned else None
        return loader(images, batches, device, self.place)
