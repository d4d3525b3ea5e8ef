"""The scaling laws of studies, and the files with the figures and every number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

import pandas as pd

from robust_arch.analysis.plots.style import save
from robust_arch.analysis.scaling.estimates import DRAWS, Scaling, fit_scaling
from robust_arch.analysis.scaling.figure import law_figure
from robust_arch.analysis.scaling.points import points_of
from robust_arch.analysis.scaling.prediction import Prediction, predict
from robust_arch.analysis.scaling.wording import COLUMNS, table
from robust_arch.common.files import write_rows
from robust_arch.errors import InputError


def scaling_of(
    frame: pd.DataFrame,
    resource: str,
    per_epoch: int | Mapping[str, int] | None = None,
    draws: int = DRAWS,
    up_to: float | None = None,
) -> list[Scaling]:
    """The laws of every set of comparable runs with enough different sizes or images seen, the largest set first.

    Args:
        frame: rows of results.csv, of one study or of several; a run that is in several counts once.
        resource: "params" or "macs".
        per_epoch: training images per epoch, of all runs or by run id; None for those of the data set.
        draws: number of resamples.
        up_to: the largest size in the fit; None for all.

    Raises:
        InputError: if no set has enough; the reason is that of the largest one.
    """
    found, reasons = [], []
    fitted = frame if up_to is None else frame[frame[resource] <= up_to]
    for points in points_of(fitted, resource, per_epoch):
        try:
            found.append(fit_scaling(points, draws))
        except InputError as error:
            reasons.append(error)
    if not found:
        missing = f"scaling: no run: expected some with {resource}, a worst-case accuracy and a robust error above 0"
        raise reasons[0] if reasons else InputError(missing)
    return found


def predictions_of(
    found: Sequence[Scaling], frame: pd.DataFrame, per_epoch: int | Mapping[str, int] | None, size: float
) -> list[Prediction]:
    """What each set of laws predicts at a size, beside the runs of that size in the table that are not in the fit.

    Args:
        found: what `scaling_of` finds in rows of `frame`.
        frame: rows of results.csv.
        per_epoch: as in `scaling_of`.
        size: in the unit of the laws.

    Raises:
        InputError: for laws of runs of one size.
    """
    recorded = {points.setting: points for points in points_of(frame, found[0].points.resource, per_epoch)}
    return [predict(each, size, recorded[each.points.setting]) for each in found]


def write_scaling(found: Sequence[Scaling], predictions: Sequence[Prediction], folder: Path) -> list[Path]:
    """Write one figure per set of runs, and scaling.csv with every number; returns the files.

    Args:
        found: the sets of laws.
        predictions: one per set, or none.
        folder: where to write.
    """
    written = []
    rows = []
    for place, (each, prediction) in enumerate(zip_longest(found, predictions), start=1):
        written += save(law_figure(each), folder, f"scaling-{place}")
        rows += [{"set": place, "checkpoint": each.points.checkpoint, **row} for row in table(each, prediction)]
    write_rows(folder / "scaling.csv", COLUMNS, rows)
    return [*written, folder / "scaling.csv"]
