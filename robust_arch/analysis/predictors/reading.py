"""predictors.csv of a study, and its columns joined to the rows of results.csv."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from robust_arch.analysis.reading import folder_of
from robust_arch.errors import InputError, invalid

FILE = "predictors.csv"
IDENTITY = ("run_id", "seed", "batch", "params", "macs")


def predictors_path(study: Path) -> Path:
    """The file of a study by its folder or its results.csv."""
    return folder_of(study) / FILE


def with_predictors(
    frame: pd.DataFrame, studies: Sequence[Path], names: Sequence[str], batch: int | None = None
) -> pd.DataFrame:
    """The rows with a column log10 of each predictor; empty where it was not computed or is not finite.

    Args:
        frame: rows of results.csv of these studies.
        studies: their folders or results.csv.
        names: of the predictors.
        batch: images per network; None where the files have one batch size.

    Raises:
        InputError: for a study without a whole predictors.csv, a column that it does not have, or several batch sizes.
    """
    found = pd.concat([_read(predictors_path(study), names) for study in studies], ignore_index=True)
    if batch is not None:
        found = found[found["batch"] == str(batch)]
    if len(batches := sorted(set(found["batch"]))) > 1:
        raise invalid(FILE, batches, "one batch size; a larger batch has other numbers")
    columns = found.drop_duplicates("run_id").set_index("run_id")[list(names)]
    numbers = columns.apply(pd.to_numeric, errors="coerce")
    logs = np.log10(numbers.where((numbers > 0) & np.isfinite(numbers)))
    return frame.drop(columns=[name for name in names if name in frame]).join(logs, on="run_id")


def _read(path: Path, names: Sequence[str]) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"--predictors: {path} is missing; `robust-arch predictors {path.parent}` writes it")
    try:
        read = pd.read_csv(path, dtype=str)
    except (ValueError, UnicodeDecodeError) as error:
        raise invalid(FILE, str(path), f"a CSV file ({error})") from None
    if missing := [name for name in IDENTITY if name not in read.columns]:
        raise invalid(FILE, str(path), f"a file with the columns {', '.join(missing)}")
    for name in names:
        if name not in read.columns or name in IDENTITY:
            known = [str(each) for each in read.columns if each not in IDENTITY]
            raise invalid("--predictors", name, f"some of {', '.join(known)}")
    return read
