"""Axes that one or two far points would set: the others keep the axes, the far ones are named at their edge."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from robust_arch.analysis.plots.marks import Mark
from robust_arch.analysis.plots.pooled import Measurement
from robust_arch.analysis.plots.style import BLUE

_FEWEST = 8  # points, of which quartiles mean something
_FENCE = 3.0  # interquartile ranges outside the quartiles (Tukey 1977: "far out")
_MOST = 0.1  # part of the points that may be set aside; at least one may
_WORTH = 1.8  # times the range of the others: what a point must add to be left out
_MARGIN = 0.08


@dataclass(frozen=True)
class Extent:
    """(N,) values in one direction, and the ends of what is drawn of each."""

    values: np.ndarray
    lows: np.ndarray
    highs: np.ndarray

    @classmethod
    def of(cls, measured: Iterable[Measurement | Mark]) -> Extent:
        """Means with their intervals and runs."""
        found = list(measured)
        values = np.array([each.mean if isinstance(each, Measurement) else each.y for each in found])
        lows = np.array([min(each.low, *each.runs, each.high) for each in found])
        highs = np.array([max(each.high, *each.runs, each.low) for each in found])
        return cls(values, lows, highs)

    @classmethod
    def at(cls, values: Sequence[float]) -> Extent:
        """Values without intervals."""
        found = np.array(values, dtype=float)
        return cls(found, found, found)

    def far(self) -> np.ndarray:
        """(N,) whether a value is so far from the others that the axes gain by leaving it out."""
        nothing = np.zeros(len(self.values), dtype=bool)
        if len(self.values) < _FEWEST:
            return nothing
        first, third = np.quantile(self.values, [0.25, 0.75])
        reach = _FENCE * (third - first)
        kept = (self.values >= first - reach) & (self.values <= third + reach)
        for place in np.argsort(np.abs(self.values - np.median(self.values))):
            wider = kept.copy()
            wider[place] = True
            if np.ptp(self.values[wider]) >= _WORTH * np.ptp(self.values[kept]):  # so are those further away
                break
            kept = wider
        return ~kept if (~kept).sum() <= max(1, _MOST * len(kept)) else nothing

    def limits(self, far: np.ndarray) -> tuple[float, float]:
        """Limits of an axis for the other values."""
        low, high = float(self.lows[~far].min()), float(self.highs[~far].max())
        margin = _MARGIN * (high - low)
        return low - margin, high + margin


def set_aside(axes: Axes, x: Extent, y: Extent, *, across: bool = False, colour: str = BLUE) -> None:
    """Leave far points out of the limits of the axes; an arrowhead at the edge has their values.

    Args:
        axes: with everything drawn.
        x: values across.
        y: values upwards.
        across: whether a point may be left out for its x, too.
        colour: of the arrowheads.
    """
    far = y.far() | x.far() if across else y.far()
    if not far.any():
        return
    axes.set_ylim(y.limits(y.far()))
    if across:
        axes.set_xlim(x.limits(x.far()))
    named: dict[tuple[float, float], list[str]] = {}
    for own, value in sorted(zip(x.values[far], y.values[far], strict=True)):
        place = (float(np.clip(own, *axes.get_xlim())), float(np.clip(value, *axes.get_ylim())))
        if place == (own, value):  # inside, as the bars of others reach as far
            continue
        named.setdefault(place, []).append(f"({own:.1f}, {value:.1f})" if across else f"{value:.1f}")
    for place, texts in named.items():
        _arrowhead(axes, place, "\n".join(texts), colour)


def _arrowhead(axes: Axes, place: tuple[float, float], text: str, colour: str) -> None:
    """An arrowhead at an edge that points out of the axes, with the text beside it."""
    low, high = axes.get_ylim()
    below, above = place[1] == low, place[1] == high
    marker = "v" if below else "^" if above else "<" if place[0] == axes.get_xlim()[0] else ">"
    axes.plot(*place, marker, color=colour, ms=5, clip_on=False, zorder=4)
    right = place[0] == axes.get_xlim()[1]
    axes.annotate(
        text,
        place,
        (-10 if right else 10, -4 if above else 4),
        textcoords="offset points",
        ha="right" if right else "left",
        va="top" if above else "bottom",
        fontsize=6.5,
    )
