"""Prints the tables of docs/theory.md from measured.csv and convolutions.csv.

Usage: python -m experiments.theory.summary
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from experiments.theory.figure import BASE, series

FOLDER = Path(__file__).parent
PARTS = ("stem", "stage_1", "stage_2", "stage_3", "head", "network")
SMOOTHNESS = ("norm_conv1", "bound_stage_3", "alone_stage_3", "bound_network", "lipschitz_l2", "lipschitz", "margin")
ERRORS = ("natural_error", "instability", "robust_error", "counted_twice")


def constants(recorded: pd.DataFrame) -> str:
    """Mean over seeds of norm / (1 + sqrt(c_in / c_out)), a line a kernel and side, a column a ratio."""
    ratio = recorded["c_in"] / recorded["c_out"]
    sides = recorded["kernel"].map("{0}x{0}".format) + ", " + recorded["side"].astype(str)
    means = recorded.assign(ratio=ratio, line=sides).pivot_table("constant", "line", "ratio", sort=False)
    return _table(
        ["kernel, side", *(f"{name:g}" for name in means)], [[line, *row] for line, *row in means.itertuples()]
    )


def moved(measured: pd.DataFrame) -> str:
    """Mean over seeds of smoothness, a line a network and state."""
    return _means(measured, ("last_width", "last_depth", "state"), SMOOTHNESS)


def errors(measured: pd.DataFrame) -> str:
    """Mean over seeds of both sides of the bound on robust error, in percent; the gap is `counted_twice`."""
    return _means(measured[measured["state"] == "trained"], ("last_width", "last_depth"), ERRORS)


def slack(measured: pd.DataFrame) -> str:
    """Bound over measured change, part by part, of the network in both series; means over seeds."""
    base = measured[(measured["last_width"] == BASE.widths[-1]) & (measured["last_depth"] == BASE.depths[-1])]
    base = base.assign(alone_network=base["lipschitz_l2"])
    lines = []
    for state, rows in base.groupby("state"):
        ratios = [(rows[f"bound_{part}"] / rows[f"alone_{part}"]).mean() for part in PARTS]
        lines.append([str(state), *ratios])
    return _table(["bound over measured", *(part.replace("_", " ") for part in PARTS)], lines)


def _means(rows: pd.DataFrame, by: Sequence[str], names: Sequence[str]) -> str:
    order = pd.concat(series(rows).values()).drop_duplicates(list(by))[list(by)]
    means = rows.groupby(list(by))[list(names)].mean()
    return _table([*by, *names], [[*line, *means.loc[tuple(line)]] for line in order.to_numpy().tolist()])


def _table(head: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    cells = [[f"{cell:,.3g}" if isinstance(cell, float) else str(cell) for cell in line] for line in lines]
    rows = ["| " + " | ".join(line) + " |" for line in (head, *cells)]
    return "\n".join([rows[0], "|" + "---|" * len(head), *rows[1:]])


def main() -> None:
    """The command."""
    measured = pd.read_csv(FOLDER / "measured.csv")
    recorded = pd.read_csv(FOLDER / "convolutions.csv")
    tables = (constants(recorded), moved(measured), slack(measured), errors(measured))
    print("\n\n".join(tables))


if __name__ == "__main__":
    main()
