"""Allocations of one budget as points in the triangle of stage shares, coloured by robust accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from math import sqrt
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from robust_arch.analysis.groups import Group
from robust_arch.analysis.plots.captions import ROBUST, conditions_without_bars
from robust_arch.analysis.plots.pooled import Pooled, pooled
from robust_arch.analysis.plots.style import COLOURMAP, COLUMN, GREY, STYLE, new_figure, write_heading
from robust_arch.errors import invalid

Shares = tuple[float, ...]
_HEIGHT = 3.6
_TOP = sqrt(3) / 2
_CORNERS: list[Shares] = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)]
_TITLES = (  # of each stage's scale, beside the side that leads to its corner, and that side's slope in degrees
    ("\N{LEFTWARDS ARROW} share of stage 1 (%)", 60),
    ("\N{LEFTWARDS ARROW} share of stage 2 (%)", -60),
    ("share of stage 3 (%) \N{RIGHTWARDS ARROW}", 0),
)
_TICK, _NUMBER, _TITLE = 0.03, 0.07, 0.16  # distances from the side, as shares
_UNIFORM = (1 / 3, 1 / 3, 1 / 3)


def position(shares: Shares) -> tuple[float, float]:
    """The point of three shares in the triangle: stage 1 at (0, 0), 3 at (1, 0), 2 at (1/2, sqrt(3)/2)."""
    if len(shares) != 3:
        raise invalid("stages", len(shares), "3 stages for a triangle")
    _, second, third = shares
    return third + second / 2, second * _TOP


@rc_context(STYLE)
def on_simplex(group: Group, named: Mapping[str, Shares]) -> Figure:
    """One point per architecture at its stages' shares of parameters, coloured by its mean; equal shares are marked.

    The colours span all intervals, and at least what the means of as many equal networks would span by chance, so that
    noise is not stretched over all colours.

    Args:
        group: the rows to show.
        named: further divisions to show without an accuracy, by name, like those of published networks.

    Raises:
        InputError: for networks without exactly three stages.
    """
    found = pooled(group)
    figure = new_figure(COLUMN, _HEIGHT)
    axes = figure.add_subplot()
    _triangle(axes)
    dots = axes.scatter(
        *_columns([each.network.shares for each in found]),
        c=[each.mean for each in found],
        cmap=COLOURMAP,
        norm=Normalize(*_limits(found)),
        s=34,
        edgecolors=GREY,
        linewidths=0.5,
        zorder=3,
    )
    line: dict[str, Any] = {"ls": "", "mfc": "none", "zorder": 4}
    axes.plot(*_columns([_UNIFORM]), "k+", ms=7, mew=1.2, label="equal shares", zorder=4)
    for (name, shares), marker in zip(named.items(), cycle("v^Ds"), strict=False):
        axes.plot(*_columns([shares]), marker, ms=5, mec="black", mew=0.9, label=name, **line)
    figure.colorbar(dots, ax=axes, orientation="horizontal", shrink=0.8, aspect=30, pad=0.02, label=ROBUST)
    figure.legend(loc="outside lower center", ncols=2, columnspacing=1, handletextpad=0.3)
    write_heading(figure, conditions_without_bars(found))
    return figure


def _limits(found: Pooled) -> tuple[float, float]:
    """Limits of the colours, in percent."""
    low, high = min(each.low for each in found), max(each.high for each in found)
    middle, half = (low + high) / 2, max(high - low, found.by_chance()) / 2
    return middle - half, middle + half


def _columns(points: Sequence[Shares]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    xs, ys = zip(*map(position, points), strict=True)
    return xs, ys


def _triangle(axes: Axes) -> None:
    axes.set_axis_off()
    axes.set_aspect("equal")
    axes.set_xlim(-0.1, 1.1)
    axes.set_ylim(-0.18, _TOP + 0.08)
    axes.plot(*_columns([*_CORNERS, _CORNERS[0]]), color="black", lw=0.8)
    for stage, (title, slope) in enumerate(_TITLES):
        _write(axes, _at(stage, 1.08, back=0.04), f"stage {stage + 1}", 7)
        _write(axes, _at(stage, 0.5 + _TITLE / 2, back=_TITLE), title, 7, slope)
        for share in (0.25, 0.5, 0.75):  # a line at each, with a tick and the share at its end
            end = _at(stage, share, back=0)
            axes.plot(*_columns([_at(stage, share, back=share - 1), end]), color=GREY, lw=0.4, alpha=0.6, zorder=1)
            axes.plot(*_columns([end, _at(stage, share, back=_TICK)]), color="black", lw=0.6, zorder=1)
            _write(axes, _at(stage, share, back=_NUMBER), f"{100 * share:.0f}", 6)


def _at(stage: int, share: float, back: float) -> Shares:
    """Shares of one stage, of -`back` for the stage before it (cyclically), and the rest for the stage after it.

    With `back` 0 the point is on the side with the stage's scale, above 0 it is outside the triangle.
    """
    shares = [0.0, 0.0, 0.0]
    shares[stage], shares[stage - 1], shares[(stage + 1) % 3] = share, -back, 1 - share + back
    return shares[0], shares[1], shares[2]


def _write(axes: Axes, shares: Shares, text: str, size: float, slope: float = 0.0) -> None:
    """Text centred at the point, rotated by `slope` degrees."""
    x, y = position(shares)
    axes.text(x, y, text, ha="center", va="center", fontsize=size, rotation=slope)
