"""Points with intervals, and labels that do not overlap anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, radians, sin

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.path import Path
from matplotlib.transforms import Bbox, offset_copy

from robust_arch.analysis.plots.style import GREY

# places of a label: the end of the mark, the offset from it in typographic points, and the alignment
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
# further away, at the end of a line from the point; the nearest first, and beside the point before above or below it
_FAR: list[_Place] = [
    ("y", (reach * cos(radians(angle)), reach * sin(radians(angle))), side, "center")
    for reach in (14, 20, 28, 38)
    for up in (0, 20, 40, 60)
    for side, angles in (("left", (up, -up)), ("right", (180 - up, 180 + up)))
    for angle in angles[: 2 if up else 1]
]
_BESIDE = 3.5  # points from a mark to its runs
_UNMISTAKABLE = 2.0  # a label this many times further from every other mark than from its own needs no line
_BACK = {"left": 0.0, "center": 0.5, "right": 1.0, "bottom": 0.0, "top": 1.0}  # of a box's size, to its lower left


@dataclass(frozen=True)
class Mark:
    """A point at (x, y) with the interval [low, high] of y (both y if unknown), a label, and the runs behind it."""

    x: float
    y: float
    low: float
    high: float
    label: str = ""
    runs: tuple[float, ...] = ()


def error_bars(
    axes: Axes, marks: Sequence[Mark], colour: str, marker: str, label: str = "", width: float = 0.8
) -> ErrorbarContainer | None:
    """Points with vertical intervals and one legend entry, their runs beside them as small dots; None without marks.

    width: of the bars, in points.
    """
    if not marks:
        return None
    draw_runs(axes, marks, colour)
    x, y, low, high = np.transpose([(mark.x, mark.y, mark.low, mark.high) for mark in marks])
    return axes.errorbar(
        x,
        y,
        yerr=[y - low, high - y] if (low < high).any() else None,
        fmt=marker,
        color=colour,
        ecolor=colour,
        elinewidth=width,
        label=label or None,
    )


def draw_runs(axes: Axes, marks: Sequence[Mark], colour: str, *, sideways: bool = False) -> None:
    """The runs of each mark as small dots to its left, or below it if drawn `sideways`; none for a single run."""
    runs = [(mark.x, value) for mark in marks for value in mark.runs if len(mark.runs) > 1]
    if not runs:
        return
    x, y = np.transpose(runs)
    beside = {"x": 0.0 if sideways else -_BESIDE, "y": -_BESIDE if sideways else 0.0}
    dots = axes.scatter(*((y, x) if sideways else (x, y)), s=4.5, color=colour, alpha=0.7, linewidths=0, zorder=1.9)
    dots.set_offset_transform(offset_copy(axes.transData, axes.get_figure(root=True), units="points", **beside))


def write_labels(axes: Axes, marks: Sequence[Mark], fontsize: str | float = "small", *, leaders: bool = False) -> None:
    """Write each label in the first place where it overlaps nothing and no other mark is nearer.

    With `leaders`, a label that could be mistaken for another mark's is placed further away, with a line to its own. A
    label without a free place is left out. Call this last: the places depend on everything else in the figure.
    """
    axes.get_figure(root=True).draw_without_rendering()  # type: ignore[union-attr]
    sheet = _Sheet(axes, marks, fontsize)
    labelled = [place for place, mark in enumerate(marks) if mark.label]
    left = [place for place in labelled if not sheet.write(place, _PLACES, _UNMISTAKABLE if leaders else 1.0)]
    for place in left if leaders else []:
        sheet.write(place, _FAR, 1.0, leader=True)


class _Sheet:
    """Occupied parts of an axes in pixels: marks with some room around them, labels, and lines to labels."""

    def __init__(self, axes: Axes, marks: Sequence[Mark], fontsize: str | float) -> None:
        self.axes, self.marks, self.fontsize = axes, marks, fontsize
        self.pixels = axes.figure.dpi / 72  # of a typographic point
        self.low = axes.transData.transform([(mark.x, mark.low) for mark in marks])
        self.high = axes.transData.transform([(mark.x, mark.high) for mark in marks])
        room = (4 * self.pixels, 2 * self.pixels)
        self.taken = [Bbox([low - room, high + room]) for low, high in zip(self.low, self.high, strict=True)]
        self.lines: list[Path] = []

    def write(self, place: int, places: Sequence[_Place], apart: float, *, leader: bool = False) -> bool:
        """Write the label of a mark in the first free place; False if there is none.

        apart: how many times further from any other mark than from its own, at least. leader: with a line to its mark.
        """
        mark = self.marks[place]
        text = self.axes.text(0, 0, mark.label, fontsize=self.fontsize, transform=self.axes.transAxes, parse_math=False)
        size = np.array(text.get_window_extent().size)
        text.remove()
        for where in places:
            end, offset, *sides = where
            at = self.axes.transData.transform((mark.x, getattr(mark, end)))
            corner = at + self.pixels * np.array(offset) - size * [_BACK[side] for side in sides]
            box, line = Bbox([corner, corner + size]), Path([at, at + self.pixels * np.array(offset)])
            if self._is_free(box) and self._is_own(place, box, apart) and (not leader or self._is_clear(place, line)):
                self._annotate(mark, where, leader)
                self.taken.append(box)
                self.lines += [line] if leader else []
                return True
        return False

    def _is_free(self, box: Bbox) -> bool:
        frame = self.axes.get_window_extent()
        inside = np.all(frame.min <= box.min) and np.all(box.max <= frame.max)
        crossed = any(line.intersects_bbox(box) for line in self.lines)
        return bool(inside) and not box.count_overlaps(self.taken) and not crossed

    def _is_own(self, place: int, box: Bbox, apart: float) -> bool:
        # pixels from the box to the nearest place of each mark's interval
        distances = np.hypot(*np.maximum(np.maximum(box.min - self.high, self.low - box.max), 0).T)
        return bool(apart * distances[place] <= np.delete(distances, place).min(initial=np.inf))

    def _is_clear(self, place: int, line: Path) -> bool:
        """Whether a line from that mark crosses no other mark, label or line."""
        others = self.taken[:place] + self.taken[place + 1 :]
        return not any(map(line.intersects_bbox, others)) and not any(map(line.intersects_path, self.lines))

    def _annotate(self, mark: Mark, where: _Place, leader: bool) -> None:
        end, offset, horizontal, vertical = where
        start = (_BACK[horizontal], _BACK[vertical])
        line = {"arrowstyle": "-", "lw": 0.5, "color": GREY, "relpos": start, "patchA": None, "shrinkA": 1}
        text = self.axes.annotate(
            mark.label,
            (mark.x, getattr(mark, end)),
            offset,
            textcoords="offset points",
            fontsize=self.fontsize,
            arrowprops=line | {"shrinkB": 2.5} if leader else None,
        )
        text.set(ha=horizontal, va=vertical, parse_math=False)
