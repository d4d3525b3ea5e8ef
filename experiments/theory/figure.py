"""Bound and measured change of small networks against the last stage's width and depth, from measured.csv."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robust_arch.analysis.plots.style import BLUE, GREEN, GREY, ORANGE, STYLE, WIDE, new_figure
from robust_arch.architectures import PRESETS
from robust_arch.errors import invalid

STUDIES = ()
MEASURED = Path(__file__).with_name("measured.csv")
BASE = PRESETS["wrn_16_half"]
STYLES: dict[str, dict[str, Any]] = {
    "initial": {"linestyle": "--", "markerfacecolor": "white"},
    "trained": {"linestyle": "-"},
}


@rc_context(STYLE)
def draw(results: Sequence[Path]) -> Figure:
    """The recorded networks; of another study the figure is drawn after its measured.csv is made.

    Raises:
        InputError: for results of another study.
    """
    if results:
        raise invalid("STUDY", [str(path) for path in results], "nothing: this figure shows measured.csv of its folder")
    return draw_series(pd.read_csv(MEASURED))


def series(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows in which only the last width moves, and those in which only the last depth does; BASE is in both."""
    return {
        "last_width": frame[frame["last_depth"] == BASE.depths[-1]],
        "last_depth": frame[frame["last_width"] == BASE.widths[-1]],
    }


def draw_series(frame: pd.DataFrame) -> Figure:
    """Bound and measured change of the last stage and of the network, and errors, against last width and last depth."""
    rows = series(frame)
    figure = new_figure(WIDE, 4.6)
    grid = figure.subplots(len(rows), 3, sharey="col")
    words = {"last_width": "width of the last stage", "last_depth": "depth of the last stage"}
    for axes, (column, part) in zip(grid, rows.items(), strict=True):
        _states(axes[0], part, column, {"bound_stage_3": (BLUE, "s"), "alone_stage_3": (ORANGE, "o")})
        _states(axes[1], part, column, {"bound_network": (BLUE, "s"), "lipschitz_l2": (ORANGE, "o")})
        _errors(axes[2], part, column)
        for axis in axes:
            _x_axis(axis, part, column, words[column])
    grid[0][0].set_title("last stage, l2 over l2")
    grid[0][1].set_title("network, l2 over l2")
    grid[0][2].set_title("errors after training (%)")
    _legends(figure, grid[0][0], grid[0][2])
    return figure


def _states(axis: Axes, part: pd.DataFrame, column: str, quantities: dict[str, tuple[str, str]]) -> None:
    for state, style in STYLES.items():
        for quantity, (colour, marker) in quantities.items():
            name = f"{'bound' if quantity.startswith('bound') else 'measured'}, {state}"
            _line(axis, part[part["state"] == state], column, quantity, name, colour, marker, **style)
    axis.set_yscale("log")


def _errors(axis: Axes, part: pd.DataFrame, column: str) -> None:
    trained = part[part["state"] == "trained"]
    trained = trained.assign(bound=trained["natural_error"] + trained["instability"])
    _line(axis, trained, column, "bound", "natural error + instability", BLUE, "s", linestyle="-")
    _line(axis, trained, column, "robust_error", "robust error", ORANGE, "o", linestyle="--")
    _line(axis, trained, column, "instability", "instability", GREEN, "^", linestyle=":")
    _line(axis, trained, column, "natural_error", "natural error", GREY, "v", linestyle="-.")
    axis.set_ylim(bottom=0)


def _line(axis: Axes, part: pd.DataFrame, x: str, y: str, label: str, colour: str, marker: str, **style: Any) -> None:
    """Means over seeds, and a dot a seed."""
    means = part.groupby(x)[y].mean()
    axis.plot(means.index, means.to_numpy(), color=colour, marker=marker, label=label, **style)
    axis.plot(part[x], part[y], color=colour, marker=".", markersize=2, linestyle="none")


def _x_axis(axis: Axes, part: pd.DataFrame, column: str, words: str) -> None:
    values = sorted(part[column].unique())
    axis.set_xscale("log", base=2)
    axis.set_xticks(values, [str(value) for value in values])
    axis.minorticks_off()
    axis.set_xlabel(words)
    axis.grid(alpha=0.3)


def _legends(figure: Figure, smoothness: Axes, errors: Axes) -> None:
    handles, labels = smoothness.get_legend_handles_labels()
    others, names = errors.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=2, frameon=False)
    figure.legend(others, names, loc="outside lower right", ncols=2, frameon=False)
