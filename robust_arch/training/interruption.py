"""A run that is signalled to stop in the middle of an epoch saves its state first."""

import logging
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from torch.utils.data import DataLoader

from robust_arch.common.files import replacing
from robust_arch.common.process import exit_now
from robust_arch.data.batches import GlobalBatches

log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)  # how schedulers announce that they stop a job
Handler = Callable[[int, FrameType | None], Any] | int | None


class SaveOnSignal(Callback):
    """On a signal that asks the process to stop, finishes the batch, writes `path`, and passes the signal on.

    After the last batch of an epoch, validation and the epoch's own checkpoint come first. A second signal is passed on
    at once. It must be made before Lightning takes over signals. A signal other than SIGTERM that nobody handles is
    left alone; so are runs on several devices, whose processes would have to agree on the batch.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.received: int | None = None
        self._outer: dict[int, Handler] = {number: signal.getsignal(number) for number in _SIGNALS}
        self._replaced: dict[int, Handler] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Start a resumed epoch after its last saved batch, and listen for signals."""
        if isinstance(loader := trainer.train_dataloader, DataLoader) and isinstance(loader.sampler, GlobalBatches):
            loader.sampler.skip(trainer.global_step - trainer.current_epoch * int(trainer.num_training_batches))
        if trainer.world_size > 1 or threading.current_thread() is not threading.main_thread():
            return
        for number, outer in self._outer.items():
            if callable(outer) or number == signal.SIGTERM:
                self._replaced[number] = signal.signal(number, self._receive)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        again, self.received = self.received is not None, signum
        if again:
            self._obey(frame)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,  # noqa: ARG002
        outputs: Any,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,
    ) -> None:
        """Save and obey, unless the epoch is over anyway."""
        if self.received is None or batch_idx + 1 >= trainer.num_training_batches:
            return
        try:
            with replacing(self.path) as temporary:
                trainer.save_checkpoint(temporary)
            log.info("stopped by signal %d after step %d, which is saved", self.received, trainer.global_step)
        except (OSError, RuntimeError) as error:  # such as a full disk: the epoch is lost, but not the signal
            log.error("step %d cannot be saved: %s", trainer.global_step, error)
        self._obey()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Obey: this callback runs after the one that writes the epoch's checkpoint."""
        self._obey()

    def _obey(self, frame: FrameType | None = None) -> None:
        """Call the handler of a received signal; if it returns, training continues."""
        if self.received is not None:
            signum, self.received = self.received, None
            outer = self._outer[signum]
            (outer if callable(outer) else exit_now)(signum, frame)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Stop listening, before Lightning restores the signal handlers that it replaced."""
        self._stop_listening()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:  # noqa: ARG002
        """Stop listening; a signal that came before the exception is still obeyed."""
        self._stop_listening()

    def _stop_listening(self) -> None:
        for number, handler in self._replaced.items():
            signal.signal(number, handler)
        self._replaced = {}
        self._obey()

    def __getstate__(self) -> dict[str, Any]:
        # handlers of this process mean nothing in the processes of a run on several devices
        return {**self.__dict__, "_outer": {}, "_replaced": {}}
