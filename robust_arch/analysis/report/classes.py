"""Accuracies by class, one row per architecture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robust_arch.analysis.formatting import number
from robust_arch.analysis.groups import Group
from robust_arch.analysis.networks import by_rank, networks

_MOST_CLASSES, _MOST_ARCHITECTURES = 20, 30


def section(main: Group | None, counts: Mapping[str, np.ndarray]) -> dict[str, Any] | None:
    """The table; None where no labels are recorded.

    Args:
        main: the rows to show.
        counts: run_id to (K, 3) counts of test images: all, correct without an attack, robust in the worst case.
    """
    found = {} if main is None else _by_architecture(main, counts)
    if main is None or not found:
        return None
    hardest = _hardest(found)
    shown = list(found.items())[:_MOST_ARCHITECTURES]
    return {
        "classes": hardest,
        "cut": _cut(len(hardest), len(next(iter(found.values()))), len(shown), len(found)),
        "rows": [(name, [_cell(share) for share in shares[hardest]]) for name, shares in shown],
    }


def _by_architecture(main: Group, counts: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The most robust first: (K, 2) means over runs of clean and robust accuracy in percent, NaN without images."""
    size = max(map(len, counts.values()), default=0)  # the highest class may be missing from one study
    found: dict[str, np.ndarray] = {}
    for network in by_rank(networks(main)):
        runs = main.rows.loc[main.rows["arch"] == network.arch, "run_id"].astype(str)
        total = np.zeros((size, 3))
        for run in runs:
            if run in counts:
                total[: len(counts[run])] += counts[run]
        if total.any():
            found[network.arch] = np.divide(
                100 * total[:, 1:], total[:, :1], out=np.full((size, 2), np.nan), where=total[:, :1] > 0
            )
    return found


def _hardest(found: Mapping[str, np.ndarray]) -> list[int]:
    """All classes in order; of many those of lowest robust accuracy, lowest first."""
    robust = np.array([shares[:, 1] for shares in found.values()])
    present = np.flatnonzero(~np.isnan(robust).all(axis=0))
    if len(present) > _MOST_CLASSES:
        order = np.argsort(np.nanmean(robust[:, present], axis=0), kind="stable")
        present = present[order[:_MOST_CLASSES]]
    return [int(place) for place in present]


def _cell(share: np.ndarray) -> dict[str, Any]:
    clean, robust = map(float, share)
    return {"robust": number(robust, 0), "clean": number(clean, 0), "shade": 0 if np.isnan(robust) else round(robust)}


def _cut(classes: int, of_classes: int, architectures: int, of_architectures: int) -> str:
    parts: Sequence[str] = [
        f"the {classes} of {of_classes} classes with the lowest robust accuracy" if classes < of_classes else "",
        f"the {architectures} of {of_architectures} most robust architectures"
        if architectures < of_architectures
        else "",
    ]
    told = " and ".join(filter(None, parts))
    return f" Shown: {told}." if told else ""
