"""Planted studies: rows of results.csv whose facts are known."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from planted_studies import write_studies

COLUMNS = (
    *("run_id", "study", "arch", "family", "depths", "widths", "params", "macs", "objective", "recipe"),
    *("train_threat", "data", "seed", "epochs", "checkpoint", "weights", "threat", "n_test"),
    *("clean_acc", "fgsm_acc", "pgd20_acc", "cw40_acc", "autoattack_acc", "worst_case_acc"),
    *("stability", "lipschitz", "train_seconds", "status"),
)

Rows = Callable[..., pd.DataFrame]


def _row(**changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS, float("nan"))
    row |= {"run_id": "run0", "study": "planted", "arch": "net0", "family": "wide_resnet", "depths": "1-1-1"}
    row |= {"widths": "16-32-64", "params": 60000, "macs": 2_450_000, "objective": "sat", "recipe": "digits"}
    row |= {"train_threat": "linf-0.2", "data": "digits", "seed": 0, "epochs": 30, "checkpoint": "best"}
    row |= {"weights": "raw", "threat": "linf-0.2", "n_test": 360, "clean_acc": 95.0, "fgsm_acc": 60.0}
    row |= {"pgd20_acc": 55.0, "cw40_acc": 54.0, "worst_case_acc": 52.5, "stability": 57.5, "lipschitz": 31.25}
    return row | {"train_seconds": 61.0, "status": "completed"} | changes


@pytest.fixture(scope="session")
def rows() -> Rows:
    """A frame of rows, each the default row with the given changes."""
    return lambda *changes: pd.DataFrame([_row(**change) for change in changes], columns=list(COLUMNS))


@pytest.fixture(scope="session")
def planted(rows: Rows) -> pd.DataFrame:
    """Four architectures at `best` and `last`, one also on 50 images with AutoAttack, one run diverged."""
    best = [
        {"run_id": "a", "arch": "net-a", "params": 58000, "worst_case_acc": 50.0},
        {"run_id": "b", "arch": "net-b", "params": 59000, "worst_case_acc": 55.0},
        {"run_id": "c", "arch": "net-c", "params": 60000, "worst_case_acc": 60.0},
        {"run_id": "d", "arch": "net-d", "params": 61000, "worst_case_acc": 52.5},
    ]
    last = [change | {"checkpoint": "last", "worst_case_acc": 45.0} for change in best]
    subset = {**best[1], "n_test": 50, "worst_case_acc": 48.0, "autoattack_acc": 48.0}
    nothing = {name: float("nan") for name in COLUMNS[COLUMNS.index("checkpoint") : -1]}
    lost = {"run_id": "e", "arch": "net-e", **nothing, "status": "diverged"}
    return rows(*best, *last, subset, lost)


@pytest.fixture
def shares() -> dict[str, tuple[float, ...]]:
    """Shares of the stages of the planted runs."""
    return {"a": (0.1, 0.2, 0.7), "b": (0.2, 0.2, 0.6), "c": (0.2, 0.4, 0.4), "d": (0.25, 0.25, 0.5)}


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a planted record of every study that experiments/ draws."""
    folder = tmp_path_factory.mktemp("records") / "studies"
    write_studies(folder)
    return folder
