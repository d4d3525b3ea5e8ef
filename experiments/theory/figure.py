"""Draws figure.pdf and figure.png from measured.csv, and correlations.pdf and .png from correlations.csv.

Usage: python experiments/theory/figure.py
"""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from correlate import QUANTITIES, SOURCES
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robust_arch.architectures import PRESETS

FOLDER = Path(__file__).parent
BASE = PRESETS["wrn_16_half"]
WIDTH, DPI = 6.8, 200  # inches; the page of a two-column paper
# told apart with any colour vision (Okabe and Ito 2008), and by marker and line besides
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#555555"
STYLES: dict[str, dict[str, Any]] = {
    "initial": {"linestyle": "--", "markerfacecolor": "white"},
    "trained": {"linestyle": "-"},
}
SETTINGS: dict[Any, Any] = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
}
SETTINGS |= {"ytick.labelsize": 7, "pdf.fonttype": 42, "lines.markersize": 4, "lines.linewidth": 1.2}


def series(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows in which only the last width moves, and those in which only the last depth does; BASE is in both."""
    return {
        "last_width": frame[frame["last_depth"] == BASE.depths[-1]],
        "last_depth": frame[frame["last_width"] == BASE.widths[-1]],
    }


def draw_series(frame: pd.DataFrame) -> Figure:
    """Bound and measured change of the last stage and of the network, and errors, against last width and last depth."""
    rows = series(frame)
    figure = Figure(figsize=(WIDTH, 4.6), dpi=DPI, layout="constrained")
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


def draw_correlations(frame: pd.DataFrame) -> Figure:
    """Kendall's tau of each quantity with robust accuracy, with its 95% interval, a marker a source."""
    figure = Figure(figsize=(WIDTH, 2.9), dpi=DPI, layout="constrained")
    axis = figure.subplots()
    looks = {"series": (BLUE, "s", -0.15), "study": (ORANGE, "o", 0.15)}
    order = list(QUANTITIES)
    for source, part in frame[frame["tau"].notna()].groupby("source"):
        colour, marker, shift = looks[str(source)]
        y = [order.index(quantity) + shift for quantity in part["quantity"]]
        first = part.iloc[0]
        label = f"{SOURCES[str(source)]}, {first['architectures']} architectures"
        bars = [(part["tau"] - part["low"]).fillna(0), (part["high"] - part["tau"]).fillna(0)]
        axis.errorbar(part["tau"], y, xerr=bars, fmt=marker, color=colour, capsize=2, elinewidth=1, label=label)
    axis.axvline(0, color=GREY, linewidth=0.8)
    axis.set_yticks(range(len(order)), list(QUANTITIES.values()))
    axis.invert_yaxis()
    axis.set_xlim(-1.05, 1.05)
    axis.set_xlabel("Kendall's tau with robust accuracy, 95% interval")
    axis.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def save(figure: Figure, name: str) -> None:
    """As PDF with its fonts inside, and as PNG."""
    figure.savefig(FOLDER / f"{name}.pdf", metadata={"CreationDate": None})
    figure.savefig(FOLDER / f"{name}.png")


def main() -> None:
    """The command."""
    with mpl.rc_context(SETTINGS):
        save(draw_series(pd.read_csv(FOLDER / "measured.csv")), "figure")
        save(draw_correlations(pd.read_csv(FOLDER / "correlations.csv")), "correlations")


if __name__ == "__main__":
    main()
