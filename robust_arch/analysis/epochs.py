"""The epochs of a study's runs as one table, from each run's metrics.csv or from one file with all of them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from robust_arch.analysis.reading import folder_of
from robust_arch.errors import InputError, invalid
from robust_arch.runs import open_study
from robust_arch.runs.metrics import read_rows

COLUMNS = ("run_id", "epoch", "lr", "train_loss", "train_acc", "val_clean_acc", "val_robust_acc", "val_robust_count")


def read_epochs(path: str | Path) -> pd.DataFrame:
    """One row per run and epoch (counted from 0), sorted by run_id, with COLUMNS; accuracies in percent.

    train_acc is over the attacked training images during the epoch, val_* over held-out training images after it.

    Args:
        path: a study's folder, a folder with a metrics.csv of COLUMNS, or a results.csv beside one.

    Raises:
        InputError: for a path without epochs, or a file without the columns.
    """
    folder = folder_of(Path(path))
    if not (file := folder / "metrics.csv").is_file():
        rows = [{"run_id": run.run_id, **row} for run in open_study(folder).runs() for row in read_rows(run.metrics)]
        if not rows:
            raise invalid("results", str(path), "a study with at least one trained epoch")
        return pd.DataFrame(rows).reindex(columns=list(COLUMNS))
    try:
        frame = pd.read_csv(file, dtype={"run_id": str})
    except (ValueError, UnicodeDecodeError) as error:
        raise invalid("metrics", str(file), f"a metrics.csv ({error})") from None
    if missing := [name for name in COLUMNS if name not in frame.columns]:
        raise InputError(f"metrics = {str(file)!r}: lacks the columns {', '.join(missing)} of a study's metrics.csv")
    return frame[list(COLUMNS)]
