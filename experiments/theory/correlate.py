"""What goes with robust accuracy over architectures: correlations.csv, its picture, and a Markdown table on the screen.

Usage: python -m experiments.theory.correlate
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from experiments.theory.figure import conditions
from robust_arch.analysis.plots.style import BLUE, GREY, ORANGE, STYLE, WIDE, new_figure, save
from robust_arch.common.statistics import rank_correlation

FOLDER = Path(__file__).parent
RECORD = FOLDER / "correlations.csv"
QUANTITIES = {
    "natural_error": "natural error",
    "instability": "instability",
    "lipschitz": "local Lipschitz, l1 over l-inf",
    "lipschitz_kl": "local Lipschitz, KL over l-inf",
    "lipschitz_l2": "local Lipschitz, l2 over l2",
    "alone_stage_3": "measured change of the last stage",
    "bound_stage_3": "bound of the last stage",
    "bound_network": "bound of the network",
}
COUNTED = ("natural_error", "instability", "robust_error")
SOURCES = {"series": "the two series", "study": "the study"}


def sources() -> dict[str, pd.DataFrame]:
    """Runs by source: the trained networks of measured.csv, and study.csv where it was collected."""
    measured = pd.read_csv(FOLDER / "measured.csv")
    found = {"series": measured[measured["state"] == "trained"]}
    if (FOLDER / "study.csv").is_file():
        found["study"] = pd.read_csv(FOLDER / "study.csv")
    return found


def correlations(runs: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Kendall's tau of each quantity with robust accuracy, both as means over the seeds of an architecture."""
    # percentages are rounded in the files: as whole numbers of test images, equal errors are equal
    counts = {name: (runs[name] / 100 * runs["n_test"]).round() for name in COUNTED}
    for quantity in QUANTITIES:
        known = runs.assign(**counts)[runs[quantity].notna() & runs["robust_error"].notna()]
        means = known.groupby("arch")[[quantity, "robust_error"]].mean()
        found = rank_correlation(means[quantity].tolist(), (-means["robust_error"]).tolist())
        yield {
            "quantity": quantity,
            "architectures": found.n,
            "runs": len(known),
            "tau": found.tau,
            "low": found.low,
            "high": found.high,
        }


def table() -> pd.DataFrame:
    """One row a source and quantity."""
    found = [{"source": name} | row for name, runs in sources().items() for row in correlations(runs)]
    return pd.DataFrame(found)


def title(runs: dict[str, pd.DataFrame]) -> str:
    """What the numbers are of: data, attack, images and seeds; how many images the last stage was measured on."""
    images = [f"{', '.join(map(str, rows['smoothness_n'].unique()))} ({SOURCES[name]})" for name, rows in runs.items()]
    return f"{conditions(pd.concat(runs.values()))}; measured change of the last stage: {', '.join(images)} images"


def markdown(frame: pd.DataFrame) -> str:
    """The table of the page: a line a quantity, a column a source."""
    names = list(dict.fromkeys(frame["source"]))
    counts = {name: frame[frame["source"] == name].iloc[0] for name in names}
    heads = [f"{SOURCES[name]}: {row.architectures} architectures, {row.runs} runs" for name, row in counts.items()]
    lines = ["| with robust accuracy | " + " | ".join(heads) + " |", "|" + "---|" * (1 + len(names))]
    for quantity, words in QUANTITIES.items():
        cells = [_cell(frame[(frame["source"] == name) & (frame["quantity"] == quantity)].iloc[0]) for name in names]
        lines.append(f"| {words} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(row: "pd.Series[Any]") -> str:
    if pd.isna(row["tau"]):
        return "-"
    interval = "" if pd.isna(row["low"]) else f" [{row['low']:+.2f}, {row['high']:+.2f}]"
    return f"{row['tau']:+.2f}{interval}"


@rc_context(STYLE)
def draw_correlations(frame: pd.DataFrame, title: str) -> Figure:
    """Kendall's tau of each quantity with robust accuracy, with its 95% interval, a marker a source."""
    figure = new_figure(WIDE, 3.2)
    figure.suptitle(title, fontsize=7, x=0.01, ha="left")
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


def main() -> None:
    """The command."""
    found = table()
    found.to_csv(RECORD, index=False, float_format="%.4g")
    save(draw_correlations(found, title(sources())), FOLDER, "correlations")
    print(markdown(found))


if __name__ == "__main__":
    main()
