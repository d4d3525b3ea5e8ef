"""result.json of a finished training."""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from robust_arch.execution.run import Run
from robust_arch.interop.reading import read_weights_only
from robust_arch.runs import RunFolder
from robust_arch.runs.provenance import provenance
from robust_arch.training.flags import training_flags

log = logging.getLogger(__name__)


def training_result(run: Run, folder: RunFolder, rows: list[dict[str, float]]) -> Mapping[str, Any]:
    """result.json of a finished training."""
    callbacks = read_weights_only(folder.checkpoint("last"))["callbacks"]
    best = callbacks["BestAndLast"]["best"]
    held_out = min(run.settings.selection.images, len(run.splits.val))
    adversarial = run.settings.objective.for_network(run.settings.spec).is_adversarial
    flags = training_flags(rows, run.splits.train.num_classes, held_out, adversarial=adversarial)
    for flag in flags:
        log.warning("run %s %s", run.run_id, flag)
    gap = best["val_robust_acc"] - rows[-1]["val_robust_acc"]
    log.info("run %s: best epoch %d; robust overfitting %.1f points", run.run_id, int(best["epoch"]) + 1, gap)
    return {
        "run_id": run.run_id,
        "command": run.settings.command,
        **provenance(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": run.settings.trainer.device.type,
        "precision": str(run.settings.trainer.precision),
        "train_seconds": round(sum(row["seconds"] for row in rows), 3),
        "epochs": run.settings.trainer.max_epochs,
        **({"selected_weights": averaging.selected} if (averaging := run.settings.recipe.averaging) else {}),
        "best_epoch": int(best["epoch"]),
        "last_epoch": int(rows[-1]["epoch"]),
        "best_val_robust_acc": best["val_robust_acc"],
        "last_val_robust_acc": rows[-1]["val_robust_acc"],
        "robust_overfitting": gap,
        "flags": flags,
        "seeds": {"seed": run.settings.seed, "split_seed": run.settings.dataset.split_seed},
        "data": {
            "name": run.settings.dataset.name,
            "fingerprint": run.training_fingerprint,
            "train": len(run.splits.train),
            "val": len(run.splits.val),
            "test": len(run.splits.test),
            **_readings(run),
            **_extra(run),
        },
        "selection_images": held_out,
        "cost": asdict(run.cost),
    }


def _readings(run: Run) -> dict[str, Any]:
    """How the files of the training set (with the held-out part) and of the test set were read, if any."""
    sets = {"train": run.splits.train, "test": run.splits.test}
    readings = {part: asdict(images.reading) for part, images in sets.items() if images.reading}
    return {"reading": readings} if readings else {}


def _extra(run: Run) -> dict[str, Any]:
    """The images that were mixed into the training batches, if any, and of an epoch that is not one pass its images."""
    extra, recipe = run.splits.extra, run.settings.recipe
    if extra is None and recipe.steps_per_epoch is None:
        return {}
    images = {"images_per_epoch": run.steps_per_epoch * recipe.batch_size}
    if extra is None:
        return images
    facts = {"name": extra.name, "file": extra.file, "images": len(extra), "fraction": extra.fraction}
    per_batch = extra.per_batch(recipe.batch_size)
    return {**images, "extra": {**facts, "per_batch": per_batch, "fingerprint": extra.fingerprint()}}
