"""The effects in studies, and the files with the figures and every number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from robust_arch.analysis.effects.design import designs
from robust_arch.analysis.effects.estimates import DRAWS, FEWEST, Effects, estimate_effects
from robust_arch.analysis.effects.figure import main_effects
from robust_arch.analysis.effects.wording import COLUMNS, table
from robust_arch.analysis.groups import groups
from robust_arch.analysis.plots.style import save
from robust_arch.common.files import write_rows
from robust_arch.errors import InputError


def effects_of(frame: pd.DataFrame, draws: int = DRAWS, predictors: Sequence[str] = ()) -> list[Effects]:
    """The effects in every comparable group and kind of architecture with enough of them, the largest first.

    Of equally large ones that at `best` is first.

    Args:
        frame: rows of results.csv, of one study or of several; a run that is in several counts once.
        draws: number of resamples.
        predictors: columns of the frame that are variables too.

    Raises:
        InputError: if no group has enough architectures.
    """
    found = [design for group in groups(frame) for design in designs(group, predictors)]
    usable = [each for each in found if len(each.names) >= FEWEST]
    if not usable:
        most = max((len(each.names) for each in found), default=0)
        raise InputError(
            f"effects: at most {most} comparable architectures with parameters, MACs and a worst-case accuracy: "
            f"expected at least {FEWEST}"
        )
    usable.sort(key=lambda each: (-len(each.names), *each.group.rank))
    return [estimate_effects(design, draws) for design in usable]


def write_effects(found: list[Effects], folder: Path) -> list[Path]:
    """Write one figure per design, and effects.csv with every number; returns the files."""
    written = []
    for place, each in enumerate(found, start=1):
        if each.curves or each.paths:
            written += save(main_effects(each), folder, f"effects-{place}")
    rows = [
        {"design": place, "checkpoint": each.design.group.checkpoint, **row}
        for place, each in enumerate(found, start=1)
        for row in table(each)
    ]
    write_rows(folder / "effects.csv", COLUMNS, rows)
    return [*written, folder / "effects.csv"]
