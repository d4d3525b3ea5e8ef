"""Robust accuracy of architectures against what they look like, one homogeneous group of rows a figure."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from robust_arch.analysis.groups import Group, only_group
from robust_arch.analysis.points import Point, points

_WIDTH, _HEIGHT = 6.4, 4.2  # inches; at 100 dots an inch 640 x 420 pixels, saved at twice that
_DPI = 200
_BLUE, _ORANGE = "#0072B2", "#B34700"  # told apart with any colour vision (after Okabe and Ito 2008, darkened)
_MOST_LABELLED = 100  # points
# where a label may stand: what of the point it stands at, the offset in typographic points, and its alignment
_PLACES: list[tuple[str, tuple[float, float], str, str]] = [
    ("accuracy", (6, 0), "left", "center"),
    ("accuracy", (-6, 0), "right", "center"),
    ("accuracy", (6, 5), "left", "bottom"),
    ("accuracy", (-6, 5), "right", "bottom"),
    ("accuracy", (6, -5), "left", "top"),
    ("accuracy", (-6, -5), "right", "top"),
    ("high", (0, 3), "center", "bottom"),
    ("low", (0, -3), "center", "top"),
]


def robust_against_last_share(
    frame: pd.DataFrame, stage_shares: Mapping[str, tuple[float, ...]], labels: Mapping[str, str] | None = None
) -> Figure:
    """Worst-case accuracy against the last stage's share of the stages' parameters, both in percent.

    Args:
        frame: rows of results.csv, comparable with one another; rows without a known share are not drawn.
        stage_shares: run_id to the share of each stage, in [0, 1].
        labels: what to write beside the point of an architecture, where there is room.

    Raises:
        InputError: for rows that may not be compared.
    """
    group = only_group(frame)
    shown = [(point.last_share, point) for point in points(group, stage_shares) if point.last_share is not None]
    return _scatter(group, shown, "Last stage's share of the stages' parameters (%)", labels or {})


def robust_against_params(frame: pd.DataFrame, labels: Mapping[str, str] | None = None) -> Figure:
    """Worst-case accuracy in percent against trainable parameters; arguments and errors as above."""
    group = only_group(frame)
    found = points(group, {})
    scale, unit = (1e6, "millions") if max(point.params for point in found) >= 1e6 else (1e3, "thousands")
    shown = [(point.params / scale, point) for point in found]
    return _scatter(group, shown, f"Trainable parameters ({unit})", labels or {})


def png(figure: Figure) -> bytes:
    """The figure at twice the pixels of its size on the page."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def _scatter(group: Group, shown: list[tuple[float, Point]], xlabel: str, labels: Mapping[str, str]) -> Figure:
    figure = Figure(figsize=(_WIDTH, _HEIGHT), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    single = [(x, point) for x, point in shown if point.runs == 1]
    repeated = [(x, point) for x, point in shown if point.runs > 1]
    _error_bars(axes, single, _BLUE, "o", "one run, Wilson 95% interval")
    _error_bars(axes, repeated, _ORANGE, "s", "mean of runs, t 95% interval")
    axes.set_xlabel(xlabel)
    axes.set_ylabel("Worst-case robust accuracy (%)")
    axes.set_title(_title(group), fontsize="medium", loc="left", parse_math=False)
    axes.grid(alpha=0.3)
    axes.margins(x=0.08, y=0.1)
    axes.ticklabel_format(useOffset=False, style="plain")
    if single and repeated:
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize="small")
    _label(figure, axes, shown, labels)
    return figure


def _title(group: Group) -> str:
    first = group.rows.iloc[0]
    return f"{first['data']}, attacked under {first['threat']}, {group.n_test} test images"


def _error_bars(axes: Axes, shown: list[tuple[float, Point]], colour: str, marker: str, label: str) -> None:
    if not shown:
        return
    accuracy = [point.accuracy for _, point in shown]
    below = [point.accuracy - point.low for _, point in shown]
    above = [point.high - point.accuracy for _, point in shown]
    axes.errorbar(
        [x for x, _ in shown],
        accuracy,
        yerr=[below, above],
        fmt=marker,
        color=colour,
        ecolor=colour,
        elinewidth=1,
        capsize=3,
        label=label,
    )


def _label(figure: Figure, axes: Axes, shown: list[tuple[float, Point]], labels: Mapping[str, str]) -> None:
    """Writes each label in the first place where it covers nothing; a label without such a place is left out.

    More than _MOST_LABELLED points get none: few would find a place, and the search takes the square of their number.
    """
    if len(shown) > _MOST_LABELLED:
        return
    figure.draw_without_rendering()
    taken = [_occupied(axes, x, point) for x, point in shown]
    for x, point in shown:
        for end, offset, horizontal, vertical in _PLACES if point.arch in labels else ():
            at = (x, getattr(point, end))
            text = axes.annotate(labels[point.arch], at, offset, textcoords="offset points", fontsize="small")
            text.set(ha=horizontal, va=vertical, parse_math=False)
            box = text.get_window_extent()
            if _inside(box, axes.get_window_extent()) and not box.count_overlaps(taken):
                taken.append(box)
                break
            text.remove()


def _occupied(axes: Axes, x: float, point: Point) -> Bbox:
    """The pixels of a point's error bar and of its marker, with a little room at the sides."""
    half = 5 * axes.figure.dpi / 72
    (centre, bottom), (_, top) = axes.transData.transform([(x, point.low), (x, point.high)])
    return Bbox.from_extents(centre - half, bottom, centre + half, top)


def _inside(box: Bbox, frame: Bbox) -> bool:
    return bool(frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1)
