"""Published robust accuracies of WRN-34-12 and WRN-34-R beside ours."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from experiments.published import comparison
from experiments.recorded import STUDIES as RECORDED
from experiments.recorded import read
from robust_arch.analysis.grid import Grid, Heading
from robust_arch.analysis.points import accuracy_interval
from robust_arch.analysis.tables import operations
from robust_arch.architectures import PRESETS, cost

STUDIES = ()  # published figures stand without ours
STUDY = RECORDED / "wrn34"
CAPTION = (
    "WRN-34-12 against WRN-34-R under l-inf, 8/255: accuracies in percent, published ones (Huang et al. 2023, Table 2: "
    "mean of three seeds, checkpoint best) beside ours (mean, 95% interval, number of seeds; empty where not run)."
)
ARCHITECTURES = {"WRN-34-12": "wrn_34_12", "WRN-34-R": "wrn_34_r"}
OBJECTIVES = ("sat", "trades", "mart")
CLASSES = {"cifar10": 10, "cifar100": 100}
ATTACKS = {"clean": "clean_acc", "pgd20": "pgd20_acc", "cw40": "cw40_acc", "autoattack": "autoattack_acc"}
N_TEST = 10_000
HEAD = (
    *(Heading(text, numeric=False) for text in ("data", "objective", "architecture")),
    Heading("params (M)"),
    Heading("MACs"),
    *(Heading(who, group=name) for name in ATTACKS for who in ("published", "ours")),
)


def tabulate(results: Sequence[Path]) -> Grid:
    """One row an architecture, data set and objective."""
    paths = list(results) or ([STUDY] if STUDY.is_dir() else [])
    frame = read(paths) if paths else None
    rows = [
        list(_row(frame, name, data, objective))
        for data in CLASSES
        for objective in OBJECTIVES
        for name in ARCHITECTURES
    ]
    return Grid(HEAD, rows, frozenset(range(len(ARCHITECTURES), len(rows), len(ARCHITECTURES))))


def published(name: str, data: str, objective: str) -> dict[str, float]:
    """The figures of Huang et al. 2023, Table 2, which are of TRADES; none for the other objectives."""
    (row,) = (row for row in comparison() if row["name"] == name)
    return dict(row[data]) if objective == "trades" else {}


def ours(frame: pd.DataFrame, arch: str, data: str, objective: str) -> dict[str, str]:
    """Mean and interval over seeds of the best checkpoint on the whole test set; an attack not run is not there."""
    wanted = {"arch": arch, "data": data, "objective": objective, "checkpoint": "best", "n_test": N_TEST}
    wanted |= {"recipe": "huang2021", "threat": "linf-8/255", "train_threat": "linf-8/255", "weights": "raw"}
    rows = frame[(frame[list(wanted)] == pd.Series(wanted)).all(axis="columns")]
    found = {name: rows[column].dropna().tolist() for name, column in ATTACKS.items()}
    return {name: _cell(values) for name, values in found.items() if values}


def _cell(values: Sequence[float]) -> str:
    mean, low, high = accuracy_interval(values, N_TEST)
    return f"{mean:.2f} [{low:.2f}, {high:.2f}] ({len(values)})"


def _row(frame: pd.DataFrame | None, name: str, data: str, objective: str) -> Iterator[str]:
    takes = cost(PRESETS[ARCHITECTURES[name]], num_classes=CLASSES[data])
    yield from (data, objective, name, f"{takes.params / 1e6:.1f}", operations(takes.macs))
    theirs = published(name, data, objective)
    mine = {} if frame is None else ours(frame, ARCHITECTURES[name], data, objective)
    for attack in ATTACKS:
        yield f"{theirs[attack]:.2f}" if attack in theirs else ""
        yield mine.get(attack, "")
