"""Points with intervals, and labels that cover nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.transforms import Bbox

# where a label may stand: what of the point it stands at, the offset in typographic points, and its alignment
_PLACES: list[tuple[str, tuple[float, float], str, str]] = [
    ("y", (6, 0), "left", "center"),
    ("y", (-6, 0), "right", "center"),
    ("y", (6, 5), "left", "bottom"),
    ("y", (-6, 5), "right", "bottom"),
    ("y", (6, -5), "left", "top"),
    ("y", (-6, -5), "right", "top"),
    ("high", (0, 3), "center", "bottom"),
    ("low", (0, -3), "center", "top"),
]


@dataclass(frozen=True)
class Mark:
    """A point at (x, y) with the interval [low, high] of y, and what to write beside it where there is room."""

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
    return axes.errorbar(
        [mark.x for mark in marks],
        [mark.y for mark in marks],
        yerr=[[mark.y - mark.low for mark in marks], [mark.high - mark.y for mark in marks]],
        fmt=marker,
        color=colour,
        ecolor=colour,
        elinewidth=width,
        label=label or None,
    )


def write_labels(axes: Axes, marks: Sequence[Mark], fontsize: str | float = "small") -> None:
    """Writes each label in the first place where it covers nothing; a label without such a place is left out."""
    axes.figure.draw_without_rendering()  # type: ignore[union-attr]
    taken = [_occupied(axes, mark) for mark in marks]
    for mark in marks:
        for end, offset, horizontal, vertical in _PLACES if mark.label else ():
            text = axes.annotate(
                mark.label, (mark.x, getattr(mark, end)), offset, textcoords="offset points", fontsize=fontsize
            )
            text.set(ha=horizontal, va=vertical, parse_math=False)
            box = text.get_window_extent()
            if _inside(box, axes.get_window_extent()) and not box.count_overlaps(taken):
                taken.append(box)
                break
            text.remove()


def _occupied(axes: Axes, mark: Mark) -> Bbox:
    """The pixels of a point's error bar and of its marker, with a little room at the sides."""
    half = 5 * axes.figure.dpi / 72
    (centre, bottom), (_, top) = axes.transData.transform([(mark.x, mark.low), (mark.x, mark.high)])
    return Bbox.from_extents(centre - half, bottom - half / 2, centre + half, top + half / 2)


def _inside(box: Bbox, frame: Bbox) -> bool:
    return bool(frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1)
