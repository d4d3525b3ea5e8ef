"""What happens at the end of an epoch: check that training has not diverged, save, select, record."""

import logging
import shutil
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, RichProgressBar
from torch import Tensor

from robust_arch.common.files import replacing
from robust_arch.common.progress import line_prefix
from robust_arch.errors import DivergedError

log = logging.getLogger(__name__)


def require_finite(value: Tensor, what: str) -> None:
    """Raise DivergedError unless every entry is finite; `what` names the value."""
    if not bool(torch.isfinite(value).all()):
        raise DivergedError(f"{what} is not finite; a lower learning rate or gradient clipping may help")


class FiniteGuard(Callback):
    """Ends a diverged run before anything of the epoch is saved.

    A loss that was not finite at any step shows in the epoch's mean. All ranks see the same values.
    """

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the mean loss, then every weight."""
        epoch = trainer.current_epoch + 1
        require_finite(trainer.callback_metrics["train_loss"], f"the mean loss of epoch {epoch}")
        for name, parameter in pl_module.named_parameters():
            require_finite(parameter.detach(), f"{name} after epoch {epoch}")


class BestAndLast(Callback):
    """`last.ckpt` after every epoch and `best.ckpt` at the highest robust count on held-out data, ties to the earlier.

    Each file is replaced in one step, best before last: a process that is killed in between repeats the epoch and
    decides the same again.

    patience: epochs without a better count after which training ends, None for never.
    """

    def __init__(self, folder: Path, patience: int | None = None) -> None:
        self.folder, self.patience = folder, patience
        self.best: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        """Saved inside the checkpoint, so that a resumed run knows the best epoch so far."""
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
                (self.folder / "interrupted.ckpt").unlink(missing_ok=True)  # of this epoch, which is complete now
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


class EpochBar(RichProgressBar):
    """Lightning's progress bar, with epochs counted from 1 as in the log."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the epoch's bar and name it."""
        super().on_train_epoch_start(trainer, pl_module)
        if self.progress is not None and self.train_progress_bar_id is not None:
            name = f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"
            self.progress.update(self.train_progress_bar_id, description=name)


class LoggersStayOpen(Callback):
    """Takes the loggers from the trainer before it closes them: the run still has its final numbers to log."""

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:  # noqa: ARG002
        """After a failure."""
        trainer.loggers = []

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:  # noqa: ARG002
        """At the end."""
        trainer.loggers = []


class EpochRecorder(Callback):
    """Hands one row per epoch to `record`, on rank 0, and logs a line with the speed and the time left."""

    def __init__(self, record: Callable[[dict[str, float]], None], images_per_epoch: int, held_out: int) -> None:
        self.record, self.images_per_epoch, self.held_out = record, images_per_epoch, held_out
        self.started = self.trained = self.earlier = self.lr = 0.0
        self.prefix = line_prefix()  # of this process; training on several devices goes on in others

    def state_dict(self) -> dict[str, Any]:
        """Of an epoch that is saved in the middle: the seconds so far and its first learning rate."""
        return {"seconds": time.perf_counter() - self.started if self.started else 0.0, "lr": self.lr}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse."""
        self.earlier, self.lr = float(state_dict["seconds"]), float(state_dict["lr"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """For an epoch that is resumed in the middle Lightning does not call `on_train_epoch_start`."""
        self.started = time.perf_counter() - self.earlier

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Note the learning rate; at the end of the epoch the schedule has already moved on."""
        self.started = time.perf_counter()
        self.lr = trainer.optimizers[0].param_groups[0]["lr"]

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """The epoch's last step is done; validation does not count towards the speed."""
        self.trained = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Record the epoch's metrics."""
        if not trainer.is_global_zero:
            return
        seconds = time.perf_counter() - self.started
        images_per_second = self.images_per_epoch / (self.trained - self.started)
        self.started = 0.0
        metrics = {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}
        epoch, epochs = trainer.current_epoch, trainer.max_epochs or 0
        self.record({"epoch": epoch, "step": trainer.global_step, "lr": self.lr, "seconds": seconds, **metrics})
        log.info(
            f"{self.prefix}epoch {epoch + 1} of {epochs}  loss {metrics['train_loss']:.3f}  held-out: clean "
            f"{metrics['val_clean_acc']:.1f}%, robust {metrics['val_robust_acc']:.1f}% (n={self.held_out})  "
            f"{images_per_second:.0f} images/s, {timedelta(seconds=round(seconds * (epochs - epoch - 1)))} left"
        )
