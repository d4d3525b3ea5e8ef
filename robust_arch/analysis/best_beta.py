"""Each architecture with its own best beta, chosen by held-out accuracy, so that capacity is not confused with beta.

A fixed beta favours the widths for which it was tuned (Wu et al. 2021, "Do wider neural networks really help
adversarial robustness?").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import pandas as pd

from robust_arch.errors import InputError
from robust_arch.runs import StudyFolder
from robust_arch.runs.labels import name_and_beta

_ALIKE = ("arch", "recipe", "train_threat", "data", "epochs")


@dataclass(frozen=True)
class Choice:
    """The beta of one architecture.

    Attributes:
        arch: the architecture.
        name: the objective without its beta.
        beta: the chosen one.
        held_out: beta to mean robust accuracy over runs, in percent of held-out images, and the number of runs.
    """

    arch: str
    name: str
    beta: float
    held_out: Mapping[float, tuple[float, int]]

    def __str__(self) -> str:
        """One line."""
        tried = ", ".join(f"{beta:g}: {value:.2f}% ({runs})" for beta, (value, runs) in self.held_out.items())
        return f"{self.arch}, {self.name}: beta {self.beta:g} of {tried}"


def held_out_accuracies(paths: Iterable[Path]) -> dict[str, float]:
    """Run to robust accuracy at its best epoch, in percent of held-out images, of all completed runs of these studies.

    Raises:
        InputError: for a study without records, as results.csv has no held-out accuracies.
    """
    found: dict[str, float] = {}
    for path in paths:
        study = StudyFolder(path)
        if path.is_file() or study.is_only_a_table:
            raise InputError(f"{path}: a best beta needs the study's records; results.csv has no held-out accuracies")
        found |= {run.run_id: result.best_val_robust_acc for run in study.runs() if (result := run.result)}
    return found


def with_best_beta(frame: pd.DataFrame, held_out: Mapping[str, float]) -> tuple[pd.DataFrame, list[Choice]]:
    """The rows of each architecture's best beta, and how it was chosen; test accuracies play no part.

    The objective of these rows is named `<name>-best_beta`. Rows of objectives with one beta in all are unchanged.

    Args:
        frame: rows of results.csv.
        held_out: from `held_out_accuracies`; of equal means the smaller beta is chosen.

    Raises:
        InputError: if no objective has two betas for an architecture.
    """
    split = [name_and_beta(label) for label in frame["objective"].astype(str)]
    rows = frame.assign(_name=[name for name, _ in split], _beta=[beta for _, beta in split])
    several = rows.groupby("_name")["_beta"].transform("nunique") > 1
    kept, choices = [rows[~several]], []
    for (arch, *_, name), alike in rows[several].groupby([*_ALIKE, "_name"], sort=False, dropna=False):
        tried = {}
        for beta, runs in alike.groupby("_beta"):
            values = [held_out[run] for run in runs["run_id"].unique() if run in held_out]
            if values:
                tried[float(str(beta))] = (mean(values), len(values))
        if not tried:
            continue
        best = max(tried, key=lambda beta: (tried[beta][0], -beta))
        choices.append(Choice(str(arch), str(name), best, tried))
        kept.append(alike[alike["_beta"] == best].assign(objective=f"{name}-best_beta"))
    if not any(len(choice.held_out) > 1 for choice in choices):
        raise InputError("objective: expected runs of an architecture with at least two betas, as objective.beta=3,6,9")
    return pd.concat(kept).sort_index().drop(columns=["_name", "_beta"]), choices
