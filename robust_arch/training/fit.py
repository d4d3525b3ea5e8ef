"""Train one network: the Lightning trainer with this project's choices, on one device or several."""

import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytorch_lightning as pl
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from torch.multiprocessing.spawn import ProcessRaisedException

from robust_arch.errors import DivergedError, invalid
from robust_arch.training.callbacks import BestAndLast, EpochRecorder
from robust_arch.training.datamodule import StudyData
from robust_arch.training.finite import FiniteGuard
from robust_arch.training.interruption import SaveOnSignal
from robust_arch.training.module import AdversarialTraining
from robust_arch.training.recipe import Recipe
from robust_arch.training.settings import TrainerSettings


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
    """Train; leaves best.ckpt and last.ckpt in `folder`.

    Goes on from the middle of an epoch, `folder`/interrupted.ckpt, or else from the last whole one, last.ckpt.

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
        devices=list(settings.gpus) if settings.gpus and settings.device.type == "cuda" else settings.devices,
        # spawned processes, as the script launcher would run the whole command again inside a Hydra sweep
        strategy="ddp_spawn" if settings.devices > 1 else "auto",
        precision=settings.precision,  # type: ignore[arg-type]
        gradient_clip_val=module.recipe.gradient_clip,
        limit_train_batches=settings.limit_train_batches,
        callbacks=[
            FiniteGuard(),
            EpochRecorder(record, images_per_epoch=steps * module.recipe.batch_size, held_out=len(data.val)),
            BestAndLast(folder, module.recipe.early_stopping),
            SaveOnSignal(folder / "interrupted.ckpt"),
        ],
        # one run is one job, whatever a cluster's variables say of the allocation in which it was started
        plugins=[LightningEnvironment()],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=sys.stderr.isatty() if settings.progress_bar is None else settings.progress_bar,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        inference_mode=False,  # attacks need gradients in validation
    )
    saved = [path for path in (folder / "interrupted.ckpt", folder / "last.ckpt") if path.is_file()]
    try:
        trainer.fit(module, data, ckpt_path=saved[0] if saved else None, weights_only=True)
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
    warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")  # its sampler is
