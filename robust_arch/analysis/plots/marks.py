"""Points with intervals, and labels that cover nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

Distances = NDArray[np.float64]
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


def write_labels(axes: Axes, marks: Sequence[Mark], fontsize: str | float = "small") -> None:
    """Writes each label in the first place where it covers nothing and no other mark is nearer.

    A label without such a place is left out. For a figure with everything else in it: the layout decides on the room.
    """
    axes.get_figure(root=True).draw_without_rendering()  # type: ignore[union-attr]
    sheet = _Sheet(axes, marks, fontsize)
    for place, mark in enumerate(marks):
        if mark.label:
            any(sheet.beside(place, where) for where in _PLACES)


class _Sheet:
    """What is taken of an axes, in pixels: by marks with a little room at their sides, then by labels."""

    def __init__(self, axes: Axes, marks: Sequence[Mark], fontsize: str | float) -> None:
        self.axes, self.marks, self.fontsize = axes, marks, fontsize
        self.low = axes.transData.transform([(mark.x, mark.low) for mark in marks])
        self.high = axes.transData.transform([(mark.x, mark.high) for mark in marks])
        half = 4 * axes.figure.dpi / 72
        room = (half, half / 2)
        self.taken = [Bbox([low - room, high + room]) for low, high in zip(self.low, self.high, strict=True)]

    def beside(self, place: int, where: _Place) -> bool:
        """Writes the label of a mark beside it, unless something is in its way or nearer to it."""
        text = self._annotated(self.marks[place], where)
        box = text.get_window_extent()
        distances = self._distances(box)
        return self._keeps(text, box, free=self._is_free(box) and bool(distances[place] <= distances.min()))

    def _annotated(self, mark: Mark, where: _Place) -> Annotation:
        end, offset, horizontal, vertical = where
        at = (mark.x, getattr(mark, end))
        text = self.axes.annotate(mark.label, at, offset, textcoords="offset points", fontsize=self.fontsize)
        text.set(ha=horizontal, va=vertical, parse_math=False)
        return text

    def _is_free(self, box: Bbox) -> bool:
        frame = self.axes.get_window_extent()
        inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
        return bool(inside) and not box.count_overlaps(self.taken)

    def _distances(self, box: Bbox) -> Distances:
        """Pixels from the box to the nearest place of each mark's interval."""
        across = np.maximum(np.maximum(box.x0 - self.low[:, 0], self.low[:, 0] - box.x1), 0)
        up = np.maximum(np.maximum(box.y0 - self.high[:, 1], self.low[:, 1] - box.y1), 0)
        distances: Distances = np.hypot(across, up)
        return distances

    def _keeps(self, text: Annotation, box: Bbox, *, free: bool) -> bool:
        if free:
            self.taken.append(box)
        else:
            text.remove()
        return free
