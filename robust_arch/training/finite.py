"""When training has diverged: the loss or a weight is no longer finite."""

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from robust_arch.errors import DivergedError


def require_finite(value: Tensor, what: str) -> None:
    """Raise DivergedError unless every entry is finite; `what` says whose value it is."""
    if not bool(torch.isfinite(value).all()):
        raise DivergedError(f"{what} is not finite; a lower learning rate or gradient clipping may help")


class FiniteGuard(Callback):
    """Ends the run at the end of an epoch, before anything is saved of it.

    A loss that was not finite at any step shows in the epoch's mean.
    """

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The mean loss, then every weight; the same on all ranks."""
        require_finite(trainer.callback_metrics["train_loss"], f"the mean loss of epoch {trainer.current_epoch}")
        for name, parameter in pl_module.named_parameters():
            require_finite(parameter.detach(), f"{name} after epoch {trainer.current_epoch}")
