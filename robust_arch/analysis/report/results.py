"""The report's tables of results, for a page without scripts; with scripts the explorer takes their place."""

from __future__ import annotations

from typing import Any

from robust_arch.analysis.formatting import ABSENT, counted
from robust_arch.analysis.report import wording
from robust_arch.analysis.report.data import OF_GROUP, Table
from robust_arch.analysis.tables import SEED, Extras

_STATIC_ROWS = 50
_NOT_SHOWN = (*OF_GROUP, "status", "run")


def section(table: Table, extras: Extras) -> dict[str, Any]:
    """One table per group, with at most its first architectures."""
    # the lead explains means and stars, also for the explorer
    return {
        "lead": wording.tables(table.groups, extras),
        "tables": [_table(table, group) for group in range(len(table.groups))],
    }


def _table(table: Table, group: int) -> dict[str, Any]:
    members = [each for each in table.architectures if each.group == group]
    summaries = list(zip(*(each.summaries for each in members), strict=True))
    places = [
        place
        for place, column in enumerate(table.columns)
        if column.heading not in _NOT_SHOWN and any(summary.cell.text != ABSENT for summary in summaries[place])
    ]
    title = str(table.groups[group])
    left = (
        f" The first {_STATIC_ROWS} of {counted(len(members), 'architecture')}." if len(members) > _STATIC_ROWS else ""
    )
    shown = [table.columns[place] for place in places]
    return {
        "caption": f"{title[:1].upper()}{title[1:]}.{left}",
        "columns": [("seeds" if column.heading == SEED else column.heading, column) for column in shown],
        "rows": [
            {
                "marked": each.marked,
                "cells": [(table.columns[place], each.summaries[place].cell) for place in places],
            }
            for each in members[:_STATIC_ROWS]
        ],
    }
