"""The scaling laws of studies, and the files with the figures and every number."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from robust_arch.analysis.plots.style import save
from robust_arch.analysis.scaling.estimates import DRAWS, Scaling, fit_scaling
from robust_arch.analysis.scaling.figure import law_figure
from robust_arch.analysis.scaling.points import points_of
from robust_arch.analysis.scaling.wording import COLUMNS, table
from robust_arch.common.files import write_rows
from robust_arch.errors import InputError


def scaling_of(
    frame: pd.DataFrame, resource: str, per_epoch: int | Mapping[str, int] | None = None, draws: int = DRAWS
) -> list[Scaling]:
    """The laws of every set of comparable runs with enough different sizes or images seen, the largest set first.

    Args:
        frame: rows of results.csv, of one study or of several; a run that is in several counts once.
        resource: "params" or "macs".
        per_epoch: training images per epoch, of all runs or by run id; None for those of the data set.
        draws: number of resamples.

    Raises:
        InputError: if no set has enough; the reason is that of the largest one.
    """
    found, reasons = [], []
    for points in points_of(frame, resource, per_epoch):
        try:
            found.append(fit_scaling(points, draws))
        except InputError as error:
            reasons.append(error)
    if not found:
        missing = f"scaling: no run: expected some with {resource}, a worst-case accuracy and a robust error above 0"
        raise reasons[0] if reasons else InputError(missing)
    return found


def write_scaling(found: list[Scaling], folder: Path) -> list[Path]:
    """Write one figure per set of runs, and scaling.csv with every number; returns the files."""
    written = []
    rows = []
    for place, each in enumerate(found, start=1):
        written += save(law_figure(each), folder, f"scaling-{place}")
        rows += [{"set": place, "checkpoint": each.points.checkpoint, **row} for row in table(each)]
    write_rows(folder / "scaling.csv", COLUMNS, rows)
    return [*written, folder / "scaling.csv"]
