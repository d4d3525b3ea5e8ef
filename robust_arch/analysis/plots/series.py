"""Networks as marks, one kind of mark per family, with bars and runs as long as these do not cover one another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from robust_arch.analysis.networks import Network
from robust_arch.analysis.plots.captions import conditions, conditions_without_bars
from robust_arch.analysis.plots.marks import Mark
from robust_arch.analysis.plots.pooled import Measurement, Pooled
from robust_arch.analysis.plots.style import BLUE, GREEN, GREY, ORANGE, PURPLE

MOST_BARS = 60
_LOOKS = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "D"), (PURPLE, "^"), (GREY, "v"))


@dataclass(frozen=True)
class Series:
    """Points of one kind, their look, and their label in the legend."""

    label: str
    marks: Sequence[Mark]
    colour: str
    marker: str
    width: float = 0.8  # of the intervals' lines, in points


def mark(each: Measurement, x: float) -> Mark:
    """A network at `x` with its interval and its runs."""
    return Mark(x, each.mean, each.low, each.high, runs=each.runs)


def by_family(found: Pooled, x: Callable[[Network], float]) -> list[Series]:
    """One series per family, in the order of the networks."""
    series: dict[str, list[Mark]] = {}
    for each in found:
        place = x(each.network)
        own = mark(each, place) if has_bars(found) else Mark(place, each.mean, each.mean, each.mean)
        series.setdefault(str(each.network.row["family"]), []).append(own)
    return [
        Series(family.replace("_", " "), marks, *_LOOKS[place % len(_LOOKS)])
        for place, (family, marks) in enumerate(series.items())
    ]


def has_bars(found: Pooled) -> bool:
    """Whether there are so few networks that their bars and runs do not cover one another."""
    return len(found) <= MOST_BARS


def heading(found: Pooled) -> str:
    """The conditions above a figure of `by_family`."""
    return conditions(found) if has_bars(found) else conditions_without_bars(found)
