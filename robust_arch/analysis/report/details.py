"""The content of a report that is not in results.csv."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import pandas as pd

from robust_arch.analysis.attacked_images import AttackedImages
from robust_arch.analysis.report.computing import Usage
from robust_arch.runs.records import Diagnosis, Smoothness

_PER_STUDY = ("name", "command", "budget", "planned", "versions", "hardware", "n_val", "epochs", "from_records")


@dataclass(frozen=True)
class StudyDetails:
    """The content of a report that is not in results.csv.

    Attributes:
        name: of the study.
        command: reproduces the study.
        stage_shares: run_id to each stage's share of the stages' parameters, in [0, 1].
        budget: in words, "60,000 parameters ±2%"; empty without one.
        planned: number of runs in the plan.
        versions: package to version.
        hardware: in words.
        best_val: run_id to the robust accuracy in percent on held-out images that selected its checkpoint.
        best_weights: run_id to the weights that have it, raw if it is missing.
        errors: run_id of a failed or diverged run to the last line of its error.
        flags: run_id to warnings about its training and evaluation, such as a collapse.
        n_val: number of held-out images.
        outcomes: run_id to (n,) booleans, robust in the worst case of the main group.
        diagnoses: name of a network and its evaluation to the recorded checks for masked gradients.
        smoothness: the same to the recorded smoothness of its stages.
        invalid: the same to why its numbers are invalid.
        commands: run_id to the command that trains it.
        facts: run_id to what is recorded about it, as pairs of a term and its value.
        cards: run_id to its model card, Markdown.
        left_out: files, and rows of plan.csv, that do not fit, to why.
        provenance: where imported numbers are from, in sentences; empty for the project's own runs.
        epochs: the table of `analysis.epochs.read_epochs`; None where epochs are not recorded.
        best_epochs: run_id to the epoch of its checkpoint `best`, counted from 0.
        classes: run_id to (K, 3) counts of test images by class: all, correct without an attack, robust in the worst
            case of the page's main group.
        images: name of a network and its evaluation to some of its attacked test images.
        usage: run_id to its computing time.
        from_records: whether there are records of runs and evaluations beside results.csv.
    """

    name: str
    command: str
    stage_shares: Mapping[str, tuple[float, ...]]
    budget: str
    planned: int
    versions: Mapping[str, str]
    hardware: str
    best_val: Mapping[str, float] = field(default_factory=dict)
    best_weights: Mapping[str, str] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)
    n_val: int | None = None
    outcomes: Mapping[str, np.ndarray] = field(default_factory=dict)
    diagnoses: Mapping[str, Diagnosis] = field(default_factory=dict)
    smoothness: Mapping[str, Smoothness] = field(default_factory=dict)
    invalid: Mapping[str, str] = field(default_factory=dict)
    commands: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    cards: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    provenance: Sequence[str] = ()
    epochs: pd.DataFrame | None = None
    best_epochs: Mapping[str, int] = field(default_factory=dict)
    classes: Mapping[str, np.ndarray] = field(default_factory=dict)
    images: Mapping[str, AttackedImages] = field(default_factory=dict)
    usage: Mapping[str, Usage] = field(default_factory=dict)
    from_records: bool = True


def joined(details: Sequence[StudyDetails]) -> StudyDetails:
    """The details of several studies as one; a run that is in several of them is described by the first."""
    if len(details) == 1:
        return details[0]
    together: dict[str, Any] = {}
    for name in (each.name for each in fields(StudyDetails) if each.name not in _PER_STUDY):
        parts = [getattr(each, name) for each in details]
        mappings = isinstance(parts[0], Mapping)
        together[name] = dict(ChainMap(*map(dict, parts))) if mappings else [item for part in parts for item in part]
    held_out = {each.n_val for each in details}
    epochs = [each.epochs for each in details if each.epochs is not None]
    return replace(
        details[0],
        name=", ".join(each.name for each in details),
        planned=sum(each.planned for each in details),
        n_val=held_out.pop() if len(held_out) == 1 else None,
        from_records=all(each.from_records for each in details),
        epochs=pd.concat(epochs).drop_duplicates(["run_id", "epoch"]) if epochs else None,
        **together,
    )
