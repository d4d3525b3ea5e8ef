"""Training curves as small pictures that follow the page's colours: one per architecture, with all its runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from robust_arch.analysis.groups import Group
from robust_arch.analysis.networks import by_rank, networks

_MOST = 24  # architectures with a picture
_MOST_POINTS = 100  # of a line; more are not visible at this size
WIDTH, HEIGHT = 320, 190
LEFT, RIGHT, TOP, BOTTOM = 38, 312, 8, 160
_LINES = {"train": "train_acc", "held_out": "val_robust_acc"}


@dataclass(frozen=True)
class _Axis:
    """Values to places on the page, in pixels."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        span = self.high - self.low or 1.0
        return round(self.start + (value - self.low) / span * (self.end - self.start), 1)

    def ticks(self, most: int) -> list[tuple[float, str]]:
        values = MaxNLocator(most, steps=[1, 2, 5, 10], integer=True).tick_values(self.low, self.high)
        return [(self.at(value), f"{value:,.0f}") for value in values if self.low <= value <= self.high]


def section(main: Group | None, epochs: pd.DataFrame | None, best_epochs: Mapping[str, int]) -> dict[str, Any] | None:
    """The pictures of the main group, the most robust architecture first; None where no epoch is recorded."""
    if main is None or epochs is None or epochs.empty:
        return None
    recorded = {str(run): rows.sort_values("epoch") for run, rows in epochs.groupby("run_id")}
    found = []
    for network in by_rank(networks(main)):
        rows = main.rows[main.rows["arch"] == network.arch].sort_values("seed")
        runs = [
            (str(run), seed) for run, seed in zip(rows["run_id"], rows["seed"], strict=True) if str(run) in recorded
        ]
        if runs:
            found.append((network.arch, runs))
    if not found:
        return None
    shown = found[:_MOST]
    frames = [recorded[run] for _, runs in shown for run, _ in runs]
    x = _Axis(1, max(2.0, 1 + max(float(rows["epoch"].max()) for rows in frames)), LEFT, RIGHT)
    values = np.concatenate([rows[list(_LINES.values())].to_numpy(float).ravel() for rows in frames])
    y = _Axis(*_span(values[np.isfinite(values)]), BOTTOM, TOP)
    return {
        "x_ticks": x.ticks(6),
        "y_ticks": y.ticks(5),
        "pictures": [
            {"name": arch, "runs": [_run(recorded[run], run, seed, best_epochs, x, y) for run, seed in runs]}
            for arch, runs in shown
        ],
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "right": RIGHT,
        "bottom": BOTTOM,
        "left_out": len(found) - len(shown),
    }


def _span(values: np.ndarray) -> tuple[float, float]:
    if not len(values):
        return 0.0, 100.0
    return max(0.0, float(values.min()) - 2), min(100.0, float(values.max()) + 2)


def _run(rows: pd.DataFrame, run: str, seed: Any, best_epochs: Mapping[str, int], x: _Axis, y: _Axis) -> dict[str, Any]:
    numbers = rows["epoch"].to_numpy(float) + 1
    held_out = rows[_LINES["held_out"]].to_numpy(float)
    # records of a study without folders hold no best epoch: the first one with most robust held-out images
    at = best_epochs.get(run, int(rows["epoch"].iloc[int(np.nan_to_num(rows["val_robust_count"]).argmax())]))
    best = int(np.abs(rows["epoch"].to_numpy(float) - at).argmin())
    marks = {
        name: (x.at(numbers[place]), y.at(held_out[place]), f"{held_out[place]:.1f}% at epoch {numbers[place]:.0f}")
        for name, place in (("best", best), ("last", len(rows) - 1))
        if np.isfinite(held_out[place])
    }
    return {
        "title": f"seed {seed:g}, run {run}" if pd.notna(seed) else f"run {run}",
        "lines": {name: _points(numbers, rows[column].to_numpy(float), x, y) for name, column in _LINES.items()},
        "marks": marks,
    }


def _points(numbers: np.ndarray, values: np.ndarray, x: _Axis, y: _Axis) -> str:
    """The corners of a line, thinned evenly with its last point kept."""
    known = np.flatnonzero(np.isfinite(values))
    kept = (
        known[np.unique(np.linspace(0, len(known) - 1, min(len(known), _MOST_POINTS)).round().astype(int))]
        if len(known)
        else known
    )
    return " ".join(f"{x.at(numbers[place]):g},{y.at(values[place]):g}" for place in kept)
