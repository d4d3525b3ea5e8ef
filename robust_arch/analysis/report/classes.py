"""Accuracies by class, one row per architecture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

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
    found: dict[str, np.ndarray] = {}
    for network in by_rank(networks(main)):
        runs = [str(run) for run in main.rows.loc[main.rows["arch"] == network.arch, "run_id"]]
        known = [counts[run] for run in runs if run in counts]
        if known and len({each.shape for each in known}) == 1:
            total = np.sum(known, axis=0).astype(float)
            with np.errstate(invalid="ignore"):
                found[network.arch] = 100 * total[:, 1:] / total[:, :1]
    sizes = [len(shares) for shares in found.values()]
    return {name: shares for name, shares in found.items() if len(shares) == max(sizes)}


def _hardest(found: Mapping[str, np.ndarray]) -> list[int]:
    """All classes in order; of many those of lowest robust accuracy, lowest first."""
    robust = np.nanmean([shares[:, 1] for shares in found.values()], axis=0)
    present = [int(place) for place in np.argsort(robust, kind="stable") if not np.isnan(robust[place])]
    return sorted(present) if len(present) <= _MOST_CLASSES else present[:_MOST_CLASSES]


def _cell(share: np.ndarray) -> dict[str, Any]:
    clean, robust = (None if np.isnan(value) else float(value) for value in share)
    return {
        "robust": "-" if robust is None else f"{robust:.0f}",
        "clean": "-" if clean is None else f"{clean:.0f}",
        "shade": 0 if robust is None else round(robust),
    }


def _cut(classes: int, of_classes: int, architectures: int, of_architectures: int) -> str:
    parts: Sequence[str] = [
        f"the {classes} of {of_classes} classes with the lowest robust accuracy" if classes < of_classes else "",
        f"the {architectures} of {of_architectures} most robust architectures"
        if architectures < of_architectures
        else "",
    ]
    told = " and ".join(filter(None, parts))
    return f" Shown: {told}." if told else ""
