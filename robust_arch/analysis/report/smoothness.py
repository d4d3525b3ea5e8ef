"""How smooth the stages of a network are: measured under attack, and bounded by operator norms."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from robust_arch.analysis.formatting import ABSENT
from robust_arch.runs.records import Smoothness

STAGE_COLUMNS = (
    "part",
    "change per change of the image",
    "per change of the part before",
    "largest of those",
    "bound of the part",
)
_MOST_OPEN, _MOST_NETWORKS = 5, 100  # networks whose tables the report shows: open, and folded


def section(found: Mapping[str, Smoothness]) -> dict[str, Any] | None:
    """The report's section, one table per network, or None without any; found: its name to the recorded smoothness."""
    if not found:
        return None
    shown = list(islice(found.items(), _MOST_NETWORKS))
    left = f", of {len(found):,}; the cards of the runs hold the others" if len(found) > len(shown) else ""
    return {
        "columns": STAGE_COLUMNS,
        "networks": [
            {"title": f"{name}; measured on {smoothness.n} of them", "rows": stage_rows(smoothness)}
            for name, smoothness in shown
        ],
        "folded": len(found) > _MOST_OPEN,
        "summary": f"{len(shown):,} networks{left}",
    }


def stage_rows(smoothness: Smoothness) -> list[list[str]]:
    """Part, mean change from the input, mean and largest change of the part alone, and bound, as text."""
    return [
        [stage.name, *map(_number, (stage.from_input, stage.alone, stage.alone_max, stage.bound))]
        for stage in smoothness.stages
    ]


def _number(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.3g}"
