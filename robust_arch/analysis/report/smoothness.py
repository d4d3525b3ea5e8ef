"""How smooth the stages of a network are: what was measured under attack beside what operator norms allow."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from robust_arch.analysis.markup import Markup, element, folded, joined, simple_table

STAGE_COLUMNS = (
    "part",
    "change per change of the image",
    "per change of the part before",
    "largest of those",
    "bound of the part",
)
_OPEN_NETWORKS, _MOST_NETWORKS = 5, 100  # whose tables the report shows: as they are, and folded
_NONE = "No stage's smoothness was asked for; the key evaluate.smoothness=200 asks for it on 200 test images a network."
_LEAD = (
    "Change of each stage's features under pgd20, as a mean over test images: relative to the change of the image, and "
    "relative to the change of the stage before. The bound on that for any image is the product of operator norms of "
    "the stage's layers, found by power iteration, which approaches them from below; the last row's bound is the "
    "head's. Lengths are Euclidean."
)


def section(found: Mapping[str, Mapping[str, Any]]) -> Markup:
    """The report's section, a table a network; found: its name to the recorded smoothness."""
    heading = element("h2", "Smoothness by stage")
    if not found:
        return joined(heading, element("p", _NONE))
    lead = element("p", _LEAD)
    tables = [_network(name, smoothness) for name, smoothness in islice(found.items(), _MOST_NETWORKS)]
    if len(found) <= _OPEN_NETWORKS:
        return joined(heading, lead, *tables)
    left = f", of {len(found):,}; the cards of the runs hold the others" if len(found) > len(tables) else ""
    return joined(heading, lead, folded(f"{len(tables):,} networks{left}", *tables))


def _network(name: str, smoothness: Mapping[str, Any]) -> Markup:
    title = f"{name}; measured on {smoothness['n']} of them"
    table = simple_table(title, STAGE_COLUMNS, stage_rows(smoothness))
    return joined(element("p", f"{title}.", class_="caption"), table)


def stage_rows(smoothness: Mapping[str, Any]) -> list[list[str]]:
    """Part, mean change from the input, mean and largest change of the part alone, bound; as text."""
    keys = ("from_input", "alone", "alone_max", "bound")
    return [[stage["name"], *(_number(stage[key]) for key in keys)] for stage in smoothness["stages"]]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
