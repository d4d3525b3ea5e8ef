"""Bound and measured change of small networks against the last stage's width and depth, from measured.csv."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robust_arch.analysis.plots.captions import threat_text
from robust_arch.analysis.plots.style import BLUE, GREEN, GREY, ORANGE, STYLE, WIDE, letter_panels, new_figure
from robust_arch.architectures import PRESETS
from robust_arch.errors import invalid

STUDIES = ()
MEASURED = Path(__file__).with_name("measured.csv")
BASE = PRESETS["wrn_16_half"]
DATA = "digits"  # of measure.py, and of the runs that collect.py reads
_POWERS = 8.6  # points: the exponents are printed at 0.7 of it
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


def conditions(frame: pd.DataFrame) -> str:
    """Data, threat model and attack; test images and seeds: two lines."""
    (threat,), (n,) = frame["threat"].unique(), frame["n_test"].unique()
    seeds = frame.groupby("arch")["seed"].nunique()
    counts = " to ".join(str(count) for count in sorted({seeds.min(), seeds.max()}))
    return f"{DATA}, {threat_text(threat)}, PGD-20\nn = {n:,} test images, mean of {counts} seeds"


def draw_series(frame: pd.DataFrame) -> Figure:
    """Bound and measured change of the last stage and of the network, and errors, against last width and last depth."""
    rows = series(frame)
    figure = new_figure(WIDE, 4.9)
    grid = figure.subplots(len(rows), 3, sharey="col")
    axis_words = {"last_width": "width of the last stage (channels)", "last_depth": "depth of the last stage (blocks)"}
    for axes, (column, part) in zip(grid, rows.items(), strict=True):
        _states(axes[0], part, column, {"bound_stage_3": (BLUE, "s"), "alone_stage_3": (ORANGE, "o")})
        _states(axes[1], part, column, {"bound_network": (BLUE, "s"), "lipschitz_l2": (ORANGE, "o")})
        _errors(axes[2], part, column)
        for axis in axes:
            _x_axis(axis, part, column, axis_words[column])
    grid[0][0].set_title("last stage: change of output / input")
    grid[0][1].set_title("network: change of logits / image")
    grid[0][2].set_title("errors after training (%)")
    words = f"{conditions(frame)} (lines), dots: the seeds; changes in $\\ell_2$"
    figure.suptitle(words, fontsize=7, x=0.01, ha="left")
    letter_panels(grid.ravel())
    _legends(figure, grid[0][0], grid[0][2])
    return figure


def _states(axis: Axes, part: pd.DataFrame, column: str, quantities: dict[str, tuple[str, str]]) -> None:
    for state, style in STYLES.items():
        for quantity, (colour, marker) in quantities.items():
            name = f"{'bound' if quantity.startswith('bound') else 'measured'}, {state}"
            _line(axis, part[part["state"] == state], column, quantity, name, colour, marker, **style)
    axis.set_yscale("log")
    axis.tick_params(axis="y", labelsize=_POWERS)


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
