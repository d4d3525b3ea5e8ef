"""The report's tables of results, for a page without scripts; with scripts the explorer takes their place."""

from __future__ import annotations

from typing import Any

import pandas as pd

from robust_arch.analysis.groups import Group, groups
from robust_arch.analysis.report import wording
from robust_arch.analysis.report.data import ordered_groups
from robust_arch.analysis.tables import Extras, columns

_STATIC_ROWS = 50


def section(frame: pd.DataFrame, main: Group | None, extras: Extras) -> dict[str, Any]:
    """One table per group, with at most its first rows."""
    found = ordered_groups(groups(frame), main)
    # the lead explains numbers and stars, also for the explorer
    return {"lead": wording.tables(found, extras), "tables": [_table(group, extras) for group in found]}


def _table(group: Group, extras: Extras) -> dict[str, Any]:
    title, shown = str(group), columns(group.rows, extras)
    records = group.rows.head(_STATIC_ROWS).to_dict("records")
    return {
        "caption": f"{title[:1].upper()}{title[1:]}.{wording.cut(_STATIC_ROWS, len(group.rows))}",
        "columns": shown,
        "rows": [
            {
                "marked": extras.is_marked(row),
                "cells": [(column, column.cell(row)) for column in shown],
            }
            for row in records
        ],
    }
