"""The figures of a report: robust accuracy against properties of networks, one group of comparable rows per figure."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO

import pandas as pd
from matplotlib.figure import Figure

from robust_arch.analysis.formatting import counted
from robust_arch.analysis.groups import Group, only_group
from robust_arch.analysis.networks import Network, half_width, networks
from robust_arch.analysis.plots.marks import Mark, error_bars, write_labels
from robust_arch.analysis.plots.style import BLUE, ORANGE
from robust_arch.analysis.tables import last_share

_WIDTH, _HEIGHT = 6.4, 4.2  # inches; at 100 dots an inch 640 x 420 pixels, saved at twice that
_DPI = 200
MOST_BARS = 60  # points; error bars of more would cover one another
_MOST_LABELLED = 100  # points; few labels of more would have room, and the search takes quadratic time


def robust_against_last_share(
    frame: pd.DataFrame, stage_shares: Mapping[str, tuple[float, ...]], labels: Mapping[str, str] | None = None
) -> Figure:
    """Worst-case accuracy against the last stage's share of the stages' parameters, both in percent.

    Args:
        frame: comparable rows of results.csv; rows without a known share are not drawn.
        stage_shares: run_id to the share of each stage, in [0, 1].
        labels: architecture to the label of its point, written where there is room.

    Raises:
        InputError: for rows that are not comparable.
    """
    group = only_group(frame)
    known = [(last_share(network.row, stage_shares), network) for network in networks(group)]
    shown = [(share, network) for share, network in known if share is not None]
    return _scatter(group, shown, "Last stage's share of the stages' parameters (%)", labels or {})


def robust_against_params(frame: pd.DataFrame, labels: Mapping[str, str] | None = None) -> Figure:
    """Worst-case accuracy in percent against trainable parameters; arguments and errors as in the other figure."""
    group = only_group(frame)
    found = networks(group)
    scale, unit = (1e6, "millions") if max(network.params for network in found) >= 1e6 else (1e3, "thousands")
    shown = [(network.params / scale, network) for network in found]
    return _scatter(group, shown, f"Trainable parameters ({unit})", labels or {})


def png(figure: Figure) -> bytes:
    """The figure as a PNG with twice the pixels of its size on the page."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def _scatter(group: Group, shown: list[tuple[float, Network]], xlabel: str, labels: Mapping[str, str]) -> Figure:
    figure = Figure(figsize=(_WIDTH, _HEIGHT), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    barred = len(shown) <= MOST_BARS
    marks = [_mark(x, network, labels.get(network.arch, ""), barred) for x, network in shown]
    single = [mark for mark, (_, network) in zip(marks, shown, strict=True) if network.robust.runs == 1]
    repeated = [mark for mark, (_, network) in zip(marks, shown, strict=True) if network.robust.runs > 1]
    error_bars(axes, single, BLUE, "o", "one run, Wilson 95% interval" if barred else "one run", width=1)
    error_bars(axes, repeated, ORANGE, "s", "mean of runs, t 95% interval" if barred else "mean of runs", width=1)
    axes.set_xlabel(xlabel)
    axes.set_ylabel("Worst-case robust accuracy (%)")
    axes.set_title(_title(group) + ("" if barred else _no_bars(shown)), fontsize="medium", loc="left", parse_math=False)
    axes.grid(alpha=0.3)
    axes.margins(x=0.08, y=0.1)
    axes.ticklabel_format(useOffset=False, style="plain")
    if single and repeated:
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize="small")
    if len(marks) <= _MOST_LABELLED:
        write_labels(axes, marks)
    return figure


def _mark(x: float, network: Network, label: str, barred: bool) -> Mark:
    robust = network.robust
    low, high = (robust.low, robust.high) if barred else (robust.mean, robust.mean)
    return Mark(x, robust.mean, low, high, label)


def _title(group: Group) -> str:
    first = group.rows.iloc[0]
    return f"{first['data']}, attacked under {first['threat']}, {counted(group.n_test, 'test image')}"


def _no_bars(shown: list[tuple[float, Network]]) -> str:
    width = half_width(network.robust for _, network in shown)
    return f"\nNo error bars: 95% intervals of ±{width:.1f} points in the median"
