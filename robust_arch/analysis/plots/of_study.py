"""Which figures answer the question of a study: chosen from its rows, for any study, with a title and a caption each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from robust_arch.analysis.epochs import read_epochs
from robust_arch.analysis.groups import main_group
from robust_arch.analysis.networks import networks
from robust_arch.analysis.plots.by_stage import against_stage
from robust_arch.analysis.plots.captions import conditions
from robust_arch.analysis.plots.simplex import on_simplex
from robust_arch.analysis.plots.study_figure import StudyFigure
from robust_arch.analysis.reading import read_results
from robust_arch.errors import InputError


def figures_at(path: Path) -> list[StudyFigure]:
    """The figures of the study at `path`: a study's folder, recorded or imported, or a results.csv.

    Raises:
        InputError: for another path, or a study without a number to draw.
    """
    frame = read_results(path)
    try:
        epochs = read_epochs(path)
    except InputError:  # a table of results alone
        epochs = None
    if not (found := figures_of(frame, epochs)):
        raise InputError(f"study = {str(path)!r}: no run has a worst-case accuracy to draw")
    return found


def figures_of(frame: pd.DataFrame, epochs: pd.DataFrame | None = None) -> list[StudyFigure]:
    """The figures that answer the question of a study, most telling first; none without worst-case accuracies.

    They are chosen from the rows and not from the study's name.

    Args:
        frame: rows of results.csv of one study.
        epochs: the table of `analysis.epochs.read_epochs`, for training curves; None where epochs are not recorded.
    """
    return list(_figures(frame))


def _figures(frame: pd.DataFrame) -> Iterator[StudyFigure]:
    group = main_group(frame)
    if group is None:
        return
    caption = conditions(group, networks(group))
    for quantity in ("widths", "depths"):
        try:
            yield StudyFigure(f"stage_{quantity[:-1]}", quantity, caption, against_stage(group, quantity))
        except InputError:
            continue
    try:
        yield StudyFigure("simplex", "divisions", caption, on_simplex(group, {}))
    except InputError:
        return
