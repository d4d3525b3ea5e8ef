"""Recorded results, from a study's folder or from a results.csv alone."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from robust_arch.errors import InputError, invalid
from robust_arch.runs import COLUMNS, StudyFolder, load_study, to_frame
from robust_arch.runs.fields import MisfitError
from robust_arch.runs.rows import read_table, results_row

if TYPE_CHECKING:  # rows are read without torch, which architectures import
    from robust_arch.architectures import ArchSpec, Cost

log = logging.getLogger(__name__)


def folder_of(study: Path) -> Path:
    """The folder of a study that is given by it or by its results.csv."""
    return study.parent if study.is_file() else study


def read_results(path: str | Path) -> pd.DataFrame:
    """The rows of results.csv, read from the records of a study's folder or from such a file.

    A folder with a results.csv and no records, as in `experiments/`, is read from that file.

    Raises:
        InputError: for another path, or a file without the columns. A record or row with a field that does not fit is
            named in the log and left out.
    """
    given = Path(path)
    if given.is_file():
        return _read_csv(given)
    if (study := StudyFolder(given)).is_only_a_table:
        return _read_csv(study.results_path)
    return load_study(given)


def _read_csv(path: Path) -> pd.DataFrame:
    rows = []
    try:
        for line, row in read_table(path, COLUMNS, results_row):
            if isinstance(row, MisfitError):
                log.warning("left out: %s line %d: %s", path, line, row)
            else:
                rows.append(row)
    except (MisfitError, OSError) as error:
        raise invalid("results", str(path), f"a results.csv ({error})") from None
    return to_frame(rows)


def stage_shares(row: Mapping[Hashable, Any], resource: str = "params") -> tuple[float, ...]:
    """Each stage's part, in [0, 1], of the stages' `resource` ("params" or "macs"), in closed form.

    The shares of MACs are for 32x32 images; they are the same for every size that the network's strides divide.

    Args:
        row: of results.csv; if `arch` is not a known name, `family`, `depths` and `widths` are used.
        resource: "params" or "macs".

    Raises:
        InputError: for a row without an architecture of a known family.
    """
    return _cost(spec_of(row)).shares(resource)


def stage_costs(spec: ArchSpec, resource: str = "params") -> tuple[int, ...]:
    """Each stage's parameters, or multiply-accumulates per 32x32 image, in closed form."""
    return _cost(spec).stages(resource)


def spec_of(row: Mapping[Hashable, Any]) -> ArchSpec:
    """The architecture of a row of results.csv; arguments and errors are those of `stage_shares`."""
    return _spec(*(str(row[name]) for name in ("arch", "family", "depths", "widths")))


@cache
def _spec(arch: str, family: str, depths: str, widths: str) -> ArchSpec:
    from robust_arch.architectures import named_spec

    try:
        return named_spec(arch)
    except InputError:  # a custom name: the other columns describe the architecture
        return named_spec(f"{family}-d{depths}-w{widths}")


@cache
def _cost(spec: ArchSpec) -> Cost:
    from robust_arch.architectures import cost

    return cost(spec)
