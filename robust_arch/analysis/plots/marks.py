"""Points with intervals, and labels that cover nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.text import Text
from matplotlib.transforms import Bbox

# where a label may stand: what of the point it stands at, the offset in typographic points, and its alignment
_Place = tuple[str, tuple[float, float], str, str]
_PLACES: list[_Place] = [
    ("y", (6, 0), "left", "center"),
    ("y", (-6, 0), "right", "center"),
    ("y", (6, 5), "left", "bottom"),
    ("y", (-6, 5), "right", "bottom"),
    ("y", (6, -5), "left", "top"),
    ("y", (-6, -5), "right", "top"),
    ("high", (0, 3), "center", "bottom"),
    ("low", (0, -3), "center", "top"),
]
_FAR: list[_Place] = [
    ("y", (x, y), "left" if x > 0 else "right", "center") for y in (-14, 14, -24, 24) for x in (20, -20, 32, -32)
]


@dataclass(frozen=True)
class Mark:
    """A point at (x, y) with the interval [low, high] of y, both y where none is known, and what to write beside it."""

    x: float
    y: float
    low: float
    high: float
    label: str = ""


def error_bars(
    axes: Axes, marks: Sequence[Mark], colour: str, marker: str, label: str = "", width: float = 0.8
) -> ErrorbarContainer | None:
    """Points with vertical intervals and one entry in the legend; nothing for none. width: of the bars, in points."""
    if not marks:
        return None
    known = any(mark.low < mark.high for mark in marks)
    return axes.errorbar(
        [mark.x for mark in marks],
        [mark.y for mark in marks],
        yerr=[[mark.y - mark.low for mark in marks], [mark.high - mark.y for mark in marks]] if known else None,
        fmt=marker,
        color=colour,
        ecolor=colour,
        elinewidth=width,
        label=label or None,
    )


def write_labels(axes: Axes, marks: Sequence[Mark], fontsize: str | float = "small", *, leaders: bool = False) -> None:
    """Writes each label in the first place where it covers nothing and no other mark is nearer.

    A label without such a place is left out; with `leaders` it is first tried farther away, with a line to its point.
    For a figure with everything else in it: where there is room depends on the layout.
    """
    axes.get_figure(root=True).draw_without_rendering()  # type: ignore[union-attr]
    taken = [_occupied(axes, mark) for mark in marks]
    far = []
    for mark in marks:
        if mark.label and not any(_written(axes, mark, place, taken, fontsize, marks) for place in _PLACES):
            far.append(mark)
    for mark in far if leaders else ():
        any(_written(axes, mark, place, taken, fontsize, None) for place in _FAR)


def _written(
    axes: Axes, mark: Mark, place: _Place, taken: list[Bbox], fontsize: str | float, rivals: Sequence[Mark] | None
) -> bool:
    """Writes the label unless something is in its way; None for `rivals` draws a line to its point."""
    end, offset, horizontal, vertical = place
    line = {"arrowstyle": "-", "lw": 0.5, "color": "black", "shrinkA": 0, "shrinkB": 2} if rivals is None else None
    at = (mark.x, getattr(mark, end))
    text = axes.annotate(mark.label, at, offset, textcoords="offset points", fontsize=fontsize, arrowprops=line)
    text.set(ha=horizontal, va=vertical, parse_math=False)
    box = Text.get_window_extent(text)  # the words alone, without the line
    free = _inside(box, axes.get_window_extent()) and not box.count_overlaps(taken)
    if free and (rivals is None or _is_nearest(axes, box, mark, rivals)):
        taken.append(box)
        return True
    text.remove()
    return False


def _is_nearest(axes: Axes, box: Bbox, mark: Mark, rivals: Sequence[Mark]) -> bool:
    own = _distance(axes, box, mark)
    return all(own <= _distance(axes, box, rival) for rival in rivals if rival is not mark)


def _distance(axes: Axes, box: Bbox, mark: Mark) -> float:
    """Pixels from the box to the nearest place of the mark's interval."""
    (x, low), (_, high) = axes.transData.transform([(mark.x, mark.low), (mark.x, mark.high)])
    return math.hypot(max(box.x0 - x, 0, x - box.x1), max(box.y0 - high, 0, low - box.y1))


def _occupied(axes: Axes, mark: Mark) -> Bbox:
    """The pixels of a point's error bar and of its marker, with a little room at the sides."""
    half = 4 * axes.figure.dpi / 72
    (centre, bottom), (_, top) = axes.transData.transform([(mark.x, mark.low), (mark.x, mark.high)])
    return Bbox.from_extents(centre - half, bottom - half / 2, centre + half, top + half / 2)


def _inside(box: Bbox, frame: Bbox) -> bool:
    return bool(frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1)
