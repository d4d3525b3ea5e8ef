"""Published robust accuracies of WRN-34-12 and WRN-34-R beside ours: prints a Markdown table.

Usage: python experiments/wrn34/compare.py [results/wrn34]
"""

import json
import sys
from pathlib import Path

import pandas as pd

from robust_arch.runs import load_study

PUBLISHED = Path(__file__).resolve().parents[1] / "published.json"
ARCHITECTURES = {"WRN-34-12": "wrn_34_12", "WRN-34-R": "wrn_34_r"}
OBJECTIVES = ("sat", "trades", "mart")
DATA = ("cifar10", "cifar100")
ATTACKS = {"clean": "clean_acc", "pgd20": "pgd20_acc", "cw40": "cw40_acc", "autoattack": "autoattack_acc"}


def published(name: str, data: str, objective: str) -> dict[str, float]:
    """The figures of Huang et al. 2023, Table 2, which are of TRADES; none for the other objectives."""
    rows = json.loads(PUBLISHED.read_text())["last_stage_comparison"]["rows"]
    (row,) = (row for row in rows if row["name"] == name)
    return dict(row[data]) if objective == "trades" else {}


def ours(frame: pd.DataFrame, arch: str, data: str, objective: str) -> dict[str, str]:
    """Mean over seeds of the best checkpoint on the whole test set, with the number of seeds; empty where not run."""
    rows = frame[
        (frame["arch"] == arch)
        & (frame["data"] == data)
        & (frame["objective"] == objective)
        & (frame["checkpoint"] == "best")
        & (frame["n_test"] == 10_000)
        & (frame["recipe"] == "huang2021")
        & (frame["threat"] == "linf-8/255")
    ]
    means = rows[list(ATTACKS.values())].mean()
    return {name: f"{means[column]:.2f} ({len(rows)})" for name, column in ATTACKS.items() if pd.notna(means[column])}


def table(frame: pd.DataFrame | None) -> str:
    """One row an architecture, data set and objective."""
    head = [
        "architecture",
        "data",
        "objective",
        *(f"{name}, {who}" for name in ATTACKS for who in ("published", "ours")),
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for data in DATA:
        for objective in OBJECTIVES:
            for name, arch in ARCHITECTURES.items():
                theirs = published(name, data, objective)
                mine = {} if frame is None else ours(frame, arch, data, objective)
                cells = [f"{theirs.get(attack, '')} | {mine.get(attack, '')}" for attack in ATTACKS]
                lines.append(f"| {name} | {data} | {objective} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """The command."""
    print(table(load_study(sys.argv[1]) if len(sys.argv) > 1 else None))


if __name__ == "__main__":
    main()
