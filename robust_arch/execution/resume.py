"""Where an interrupted run resumes."""

import logging
from pathlib import Path

from robust_arch.interop.reading import read_weights_only
from robust_arch.runs import RunFolder, metrics

log = logging.getLogger(__name__)


def resumable_rows(folder: RunFolder) -> list[dict[str, float]]:
    """Cut metrics.csv back to the epochs of the last checkpoint, and return its rows.

    A last checkpoint that cannot be read, or whose best.ckpt or rows are missing, is removed, and training starts
    again. A checkpoint from the middle of an epoch is removed unless it continues the last one.
    """
    last, interrupted = folder.checkpoint("last"), folder.checkpoint("interrupted")
    epochs = _epoch(last) + 1
    rows = metrics.keep_epochs_before(folder.metrics, epochs)
    if last.is_file() and not (0 < epochs == len(rows) and _epoch(folder.checkpoint("best")) >= 0):
        log.warning("run %s is incomplete and starts again", folder.run_id)
        last.unlink()
        epochs, rows = 0, metrics.keep_epochs_before(folder.metrics, 0)
    if interrupted.is_file() and _epoch(interrupted) != epochs:
        interrupted.unlink()
    return rows


def _epoch(checkpoint: Path) -> int:
    """The epoch of a checkpoint, counted from 0; -1 if it is missing or cannot be read."""
    if not checkpoint.is_file():
        return -1
    try:
        return int(read_weights_only(checkpoint)["epoch"])
    except (ValueError, KeyError, TypeError) as error:
        log.warning("%s cannot be read: %s", checkpoint, error)
        return -1
