"""Published robust accuracies of WRN-34-12 and WRN-34-R beside ours."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path

import pandas as pd

from experiments.published import comparison
from experiments.recorded import STUDIES as RECORDED
from experiments.recorded import read
from robust_arch.analysis.formatting import ABSENT, operations
from robust_arch.analysis.plots.captions import attack_text
from robust_arch.analysis.text_table import Heading, TextTable
from robust_arch.architectures import PRESETS, cost
from robust_arch.common.statistics import accuracy_interval
from robust_arch.errors import invalid

STUDIES = ()  # published figures stand without ours
STUDY = RECORDED / "wrn34"
CAPTION = (
    "WRN-34-12 against WRN-34-R under l-inf, 8/255: accuracies in percent at the checkpoint best. Published: Huang et "
    "al. 2023, Table 2, means without intervals. Ours: means over seeds with 95% t intervals in brackets (Wilson "
    "intervals for a single seed)."
)
ARCHITECTURES = {"WRN-34-12": "wrn_34_12", "WRN-34-R": "wrn_34_r"}
OBJECTIVES = ("sat", "trades", "mart")
CLASSES = {"cifar10": 10, "cifar100": 100}
ACCURACIES = {"clean": "clean_acc", "pgd20": "pgd20_acc", "cw40": "cw40_acc", "autoattack": "autoattack_acc"}
N_TEST, PUBLISHED_SEEDS = 10_000, 3
EPOCHS = 100  # of the recipe: a shorter run of it is another one
HEAD = (
    *(Heading(text, numeric=False) for text in ("data", "objective", "architecture")),
    Heading("params (M)"),
    Heading("MACs"),
    Heading("source", numeric=False),
    Heading("seeds"),
    *(Heading(f"{attack_text(name)} (%)") for name in ACCURACIES),
)


def tabulate(results: Sequence[Path]) -> TextTable:
    """For each data set and objective both architectures, published where there is something, and ours below."""
    paths = list(results) or ([STUDY] if STUDY.is_dir() else [])
    frame = read(paths) if paths else None
    parts = [list(_part(frame, data, objective)) for data in CLASSES for objective in OBJECTIVES]
    return TextTable(
        HEAD, [row for part in parts for row in part], frozenset(accumulate(len(part) for part in parts[:-1]))
    )


def published(name: str, data: str, objective: str) -> dict[str, float]:
    """The figures of Huang et al. 2023, Table 2, which are of TRADES; none for the other objectives."""
    (row,) = (row for row in comparison() if row["name"] == name)
    return dict(row[data]) if objective == "trades" else {}


def ours(frame: pd.DataFrame, arch: str, data: str, objective: str) -> pd.DataFrame:
    """The rows of the best checkpoint under the published recipe, all its epochs, on the whole test set: one a seed.

    Raises:
        InputError: where two runs have the same seed, as those of the same configuration on two machines.
    """
    wanted = {
        "arch": arch,
        "data": data,
        "objective": objective,
        "checkpoint": "best",
        "n_test": N_TEST,
        "epochs": EPOCHS,
    }
    wanted |= {"recipe": "huang2021", "threat": "linf-8/255", "train_threat": "linf-8/255", "weights": "raw"}
    rows = frame[(frame[list(wanted)] == pd.Series(wanted)).all(axis="columns")]
    if rows["seed"].duplicated().any():
        raise invalid("results", f"{arch}, {objective} on {data}: seeds {sorted(rows['seed'])}", "one run a seed")
    return rows


def _part(frame: pd.DataFrame | None, data: str, objective: str) -> Iterator[list[str]]:
    for name, arch in ARCHITECTURES.items():
        takes = cost(PRESETS[arch], num_classes=CLASSES[data])
        what = [data, objective, name, f"{takes.params / 1e6:.1f}", operations(takes.macs)]
        if theirs := published(name, data, objective):
            yield [*what, "published", str(PUBLISHED_SEEDS), *(f"{theirs[key]:.2f}" for key in ACCURACIES)]
        rows = None if frame is None else ours(frame, arch, data, objective)
        if rows is None or rows.empty:
            yield [*what, "ours", "0", *(ABSENT for _ in ACCURACIES)]
        else:
            yield [*what, "ours", str(len(rows)), *(_cell(rows[column], len(rows)) for column in ACCURACIES.values())]


def _cell(accuracies: pd.Series, seeds: int) -> str:
    """The mean with its interval; with the number of seeds where it is not that of the row."""
    values = accuracies.dropna().tolist()
    if not values:
        return ABSENT
    mean, low, high = accuracy_interval(values, N_TEST)
    text = f"{mean:.2f} [{low:.2f}, {high:.2f}]"
    return text if len(values) == seeds else f"{text}, {len(values)} of the seeds"
