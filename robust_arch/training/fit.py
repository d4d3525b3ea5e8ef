"""Train one network: the Lightning trainer with this project's choices, on one device or several."""

import logging
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch.multiprocessing.spawn import ProcessRaisedException

from robust_arch.errors import DivergedError, invalid, require_flag
from robust_arch.training.callbacks import BestAndLast, EpochRecorder
from robust_arch.training.datamodule import StudyData
from robust_arch.training.finite import FiniteGuard
from robust_arch.training.module import AdversarialTraining
from robust_arch.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """How and where to train; none but epochs, precision, devices and the batch limit changes what is computed.

    accelerator: auto, cpu or gpu. devices: processes, one device each. precision: as Lightning names it.
    threads: CPU threads, None for torch's default. limit_train_batches: batches an epoch, None for all.
    """

    max_epochs: int
    accelerator: str = "auto"
    devices: int = 1
    precision: str = "32"
    threads: int | None = None
    limit_train_batches: int | None = None
    progress_bar: bool | None = None

    def __post_init__(self) -> None:
        for key in ("max_epochs", "devices", "threads", "limit_train_batches"):
            value = getattr(self, key)
            optional = key in ("threads", "limit_train_batches")
            if value is None and optional:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                allowed = "an integer of at least 1" + (", or null" if optional else "")
                raise invalid(f"trainer.{key}", value, allowed)
        if self.progress_bar is not None:
            require_flag("trainer.progress_bar", self.progress_bar)
        if self.accelerator not in ("auto", "cpu", "gpu"):
            raise invalid("trainer.accelerator", self.accelerator, "auto, cpu or gpu")
        if str(self.precision) not in ("32", "bf16-mixed"):
            raise invalid("trainer.precision", self.precision, "32 or bf16-mixed")
        available = torch.cuda.device_count()
        if self.device.type == "cuda" and available < self.devices:
            raise invalid("trainer.devices", self.devices, f"at most the {available} GPUs that torch sees here")

    def limit_threads(self) -> None:
        """Compute on `threads` CPU threads in this process, which decides the order of floating-point sums."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)

    @property
    def device(self) -> torch.device:
        """Where a single process computes."""
        use_gpu = self.accelerator == "gpu" or (self.accelerator == "auto" and torch.cuda.is_available())
        return torch.device("cuda" if use_gpu else "cpu")


def require_equal_shares(recipe: Recipe, devices: int) -> None:
    """Raise InputError unless every batch divides evenly: the mean over devices is then the mean over the batch."""
    if recipe.batch_size % devices:
        raise invalid("recipe.batch_size", recipe.batch_size, f"a multiple of trainer.devices = {devices}")
    if devices > 1 and not recipe.drop_last:
        raise invalid("recipe.drop_last", False, "true where trainer.devices > 1, as devices need equal shares")


def fit(
    module: AdversarialTraining,
    data: StudyData,
    settings: TrainerSettings,
    *,
    folder: Path,
    record: Callable[[dict[str, float]], None],
) -> None:
    """Train, from `folder`/last.ckpt if it is there; leaves best.ckpt and last.ckpt in `folder`.

    Raises:
        DivergedError: if the loss or a weight is no longer finite.
        InputError: if the devices' shares of a batch would differ.
    """
    require_equal_shares(module.recipe, settings.devices)
    quiet_lightning()
    folder.mkdir(parents=True, exist_ok=True)
    steps = module.steps_per_epoch
    trainer = pl.Trainer(
        max_epochs=settings.max_epochs,
        accelerator="gpu" if settings.device.type == "cuda" else "cpu",
        devices=settings.devices,
        # spawned processes, as the script launcher would run the whole command again inside a Hydra sweep
        strategy="ddp_spawn" if settings.devices > 1 else "auto",
        precision=settings.precision,  # type: ignore[arg-type]
        gradient_clip_val=module.recipe.gradient_clip,
        limit_train_batches=settings.limit_train_batches,
        callbacks=[
            FiniteGuard(),
            EpochRecorder(record, images_per_epoch=steps * module.recipe.batch_size, held_out=len(data.val)),
            BestAndLast(folder, module.recipe.early_stopping),
        ],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=sys.stderr.isatty() if settings.progress_bar is None else settings.progress_bar,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        inference_mode=False,  # attacks need gradients in validation
    )
    last = folder / "last.ckpt"
    try:
        trainer.fit(module, data, ckpt_path=last if last.is_file() else None, weights_only=True)
    except FloatingPointError as error:  # what an attack raises that meets a network of NaN
        raise DivergedError(str(error)) from error
    except ProcessRaisedException as error:
        if DivergedError.__name__ in str(error) or FloatingPointError.__name__ in str(error):
            raise DivergedError(str(error)) from error
        raise


def quiet_lightning() -> None:
    """Silence Lightning's notes that do not concern the user of this package."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
