"""Train one network with a Lightning trainer set up for this project, on one device or several."""

import logging
import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import cast

import pytorch_lightning as pl
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.callbacks import Callback, Checkpoint
from pytorch_lightning.loggers import Logger
from torch.multiprocessing.spawn import ProcessRaisedException

from robust_arch.common.process import console_is_terminal, is_drawn_on
from robust_arch.errors import DivergedError
from robust_arch.training.callbacks import BestAndLast, EpochBar, EpochRecorder, FiniteGuard, LoggersStayOpen
from robust_arch.training.datamodule import StudyData
from robust_arch.training.interruption import SaveOnSignal
from robust_arch.training.module import AdversarialTraining
from robust_arch.training.recipe import require_equal_shares
from robust_arch.training.settings import TrainerSettings


def fit(
    module: AdversarialTraining,
    data: StudyData,
    settings: TrainerSettings,
    *,
    folder: Path,
    record: Callable[[dict[str, float]], None],
    loggers: Sequence[Logger] = (),
) -> None:
    """Train, and leave best.ckpt and last.ckpt in `folder`.

    Resumes in the middle of an epoch from `folder`/interrupted.ckpt, or else after the last complete one, last.ckpt.

    loggers: for the user's own callbacks, on one device; the metrics of the training go to `record` alone.

    Raises:
        DivergedError: if the loss or a weight is no longer finite.
        InputError: if the devices' shares of a batch would differ.
    """
    require_equal_shares(module.recipe, settings.devices)
    _quiet_lightning()
    folder.mkdir(parents=True, exist_ok=True)
    images_per_epoch = module.steps_per_epoch * module.recipe.batch_size
    show_bar = not is_drawn_on() and (console_is_terminal() if settings.progress_bar is None else settings.progress_bar)
    # copies, as an earlier attempt in this process would leave its state in them
    own = deepcopy(cast(tuple[Callback, ...], settings.callbacks))
    trainer = pl.Trainer(
        default_root_dir=folder.parent,
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
            *own,  # before the checkpoint is saved, so that it has their state
            EpochRecorder(record, images_per_epoch=images_per_epoch, held_out=len(data.val)),
            BestAndLast(folder, module.recipe.early_stopping),
            SaveOnSignal(folder / "interrupted.ckpt"),
            LoggersStayOpen(),
            *([EpochBar()] if show_bar else []),
        ],
        # a run is one job, whatever a cluster's environment variables say about the allocation it was started in
        plugins=[LightningEnvironment()],
        # without callbacks they stay outside: Lightning's calls of a logger are not guarded
        logger=list(loggers) if own and settings.devices == 1 else False,
        enable_checkpointing=any(isinstance(each, Checkpoint) for each in own),
        enable_model_summary=False,
        enable_progress_bar=show_bar,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        inference_mode=False,  # attacks need gradients in validation
    )
    saved = [path for path in (folder / "interrupted.ckpt", folder / "last.ckpt") if path.is_file()]
    try:
        trainer.fit(module, data, ckpt_path=saved[0] if saved else None, weights_only=True)
    except FloatingPointError as error:  # an attack met a network of NaN
        raise DivergedError(str(error)) from error
    except ProcessRaisedException as error:  # holds only the text of what a process raised
        if any(kind.__name__ in str(error) for kind in (DivergedError, FloatingPointError)):
            raise DivergedError(str(error)) from error
        raise


def _quiet_lightning() -> None:
    """Silence Lightning's notes that do not concern the user of this package."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for text in (
        "does not have many workers",
        "GPU available but not used",
        "Checkpoint directory .* exists and is not empty",
        "LeafSpec",
        "your dataloader is not resumable",  # its sampler is
        "smaller than the logging interval",  # of steps; only epochs are logged
    ):
        warnings.filterwarnings("ignore", message=f".*{text}")
