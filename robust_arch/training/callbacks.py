"""What happens at the end of an epoch: select, save, record, tell."""

import logging
import shutil
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from robust_arch.common.files import replacing

log = logging.getLogger(__name__)


class BestAndLast(Callback):
    """`last.ckpt` after every epoch and `best.ckpt` at the highest robust count on held-out data, ties to the earlier.

    Each file is replaced in one step, best before last: a process killed in between repeats the epoch and decides
    the same again.

    patience: epochs without a better count after which training ends, None for never.
    """

    def __init__(self, folder: Path, patience: int | None = None) -> None:
        self.folder = folder
        self.patience = patience
        self.best: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        """Saved inside the checkpoint, so that a resumed run knows the best so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse."""
        self.best = dict(state_dict["best"])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Runs on every rank, as saving is collective; rank 0 owns the files."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        improved = not self.best or metrics["val_robust_count"] > self.best["val_robust_count"]
        if improved:
            self.best = {"epoch": trainer.current_epoch, **metrics}
        temporary = self.folder / "last.ckpt.tmp"
        try:
            trainer.save_checkpoint(temporary)
            if trainer.is_global_zero:
                if improved:
                    with replacing(self.folder / "best.ckpt") as copy:
                        shutil.copyfile(temporary, copy)
                temporary.replace(self.folder / "last.ckpt")
                (self.folder / "interrupted.ckpt").unlink(missing_ok=True)  # of this epoch, which is whole now
        finally:
            if trainer.is_global_zero:  # on a full disk its room is needed to record what happened
                temporary.unlink(missing_ok=True)
        trainer.strategy.barrier()
        self._stop_if_stale(trainer, trainer.current_epoch)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """A run that was killed after its last epoch has nothing left to do."""
        self._stop_if_stale(trainer, trainer.current_epoch - 1)

    def _stop_if_stale(self, trainer: pl.Trainer, epoch: int) -> None:
        if self.patience is not None and self.best and epoch - self.best["epoch"] >= self.patience:
            trainer.should_stop = True


class EpochRecorder(Callback):
    """Hands one row an epoch to `record`, on rank 0, and logs a line with the rate and the time left."""

    def __init__(self, record: Callable[[dict[str, float]], None], images_per_epoch: int, held_out: int) -> None:
        self.record = record
        self.images_per_epoch = images_per_epoch
        self.held_out = held_out
        self.started = self.trained = self.earlier = 0.0
        self.lr = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Of an epoch that is saved in the middle, the seconds so far and the rate at its start."""
        return {"seconds": time.perf_counter() - self.started if self.started else 0.0, "lr": self.lr}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse."""
        self.earlier, self.lr = float(state_dict["seconds"]), float(state_dict["lr"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Lightning calls no `on_train_epoch_start` for an epoch that was cut off and goes on."""
        self.started = time.perf_counter() - self.earlier

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """The rate of this epoch; at its end the schedule has already moved on."""
        self.started = time.perf_counter()
        self.lr = trainer.optimizers[0].param_groups[0]["lr"]

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """The epoch's last step is done; what follows does not count into the rate."""
        self.trained = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Training and validation of the epoch are over."""
        if not trainer.is_global_zero:
            return
        seconds = time.perf_counter() - self.started
        rate = self.images_per_epoch / (self.trained - self.started)
        self.started = 0.0
        metrics = {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}
        epoch, epochs = trainer.current_epoch, trainer.max_epochs or 0
        self.record({"epoch": epoch, "step": trainer.global_step, "lr": self.lr, "seconds": seconds, **metrics})
        log.info(
            "epoch %d/%d  loss %.3f  held-out: clean %.1f%%, robust %.1f%% (n=%d)  %.0f images/s, %s left",
            epoch + 1,
            epochs,
            metrics["train_loss"],
            metrics["val_clean_acc"],
            metrics["val_robust_acc"],
            self.held_out,
            rate,
            timedelta(seconds=round(seconds * (epochs - epoch - 1))),
        )
