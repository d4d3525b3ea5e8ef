"""Training curves: robust accuracy by epoch, before and after the best epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from robust_arch.analysis.groups import Group, groups
from robust_arch.analysis.plots.captions import threat_text
from robust_arch.analysis.plots.style import BLUE, GREEN, GREY, ORANGE, STYLE, WIDE, new_figure
from robust_arch.common.statistics import percent_interval
from robust_arch.errors import invalid

_HEIGHT = 2.8
# in both panels: colour and line width for the images, marker and line style for the seed, its face for the checkpoint
_TRAIN: dict[str, Any] = {"color": ORANGE, "lw": 0.6}
_HELD_OUT: dict[str, Any] = {"color": BLUE, "lw": 1.3}
_TEST: dict[str, Any] = {"color": GREEN, "lw": 0.9}
_MARKERS = "osD^vP"
_LINES = ("-", "--", ":", "-.")
_FACES: dict[str, dict[str, Any]] = {
    "best": {"mfc": "black", "mec": "white", "mew": 0.6},
    "last": {"mfc": "none", "mec": "black", "mew": 0.9},
}
_CHECKPOINTS = tuple(_FACES)
_MOST_COLUMNS = 8  # of the legend; more would not fit


@dataclass(frozen=True)
class Curve:
    """The robust accuracies of one run, in percent.

    Attributes:
        seed: of the run.
        train: on training images by epoch.
        held_out: on held-out images by epoch.
        held_out_counts: number of robust held-out images by epoch.
        rates: learning rate by epoch.
        test: on test images, at best and at last.
    """

    seed: int
    train: Sequence[float]
    held_out: Sequence[float]
    held_out_counts: Sequence[float]
    rates: Sequence[float]
    test: tuple[float, float]

    @property
    def best(self) -> int:
        """The epoch of `best`, counted from 0: the first one with most robust held-out images."""
        return max(range(len(self.held_out)), key=lambda epoch: (self.held_out_counts[epoch], -epoch))

    @property
    def held_out_images(self) -> int | None:
        """Their number; None if none was ever robust, as counts and percentages are then all 0."""
        count, percent = self.held_out_counts[self.best], self.held_out[self.best]
        return round(100 * count / percent) if percent else None

    @property
    def drops(self) -> list[int]:
        """Epochs, counted from 0, whose learning rate is at most half that of the epoch before."""
        return [epoch for epoch in range(1, len(self.rates)) if self.rates[epoch] <= self.rates[epoch - 1] / 2]


def curves(frame: pd.DataFrame, epochs: pd.DataFrame) -> list[Curve]:
    """The runs of a study by seed; arguments and errors are those of `training_curves`."""
    both = {group.checkpoint: _by_run(group) for group in groups(frame)}
    alike = len(both) == len(groups(frame)) and len(set(frame["arch"])) == 1
    if not alike or set(both) != set(_CHECKPOINTS) or both["best"].keys() != both["last"].keys():
        raise invalid("results", [str(group) for group in groups(frame)], "runs of one kind at best and at last")
    rows = frame[frame["run_id"].isin(both["best"])].drop_duplicates("run_id").sort_values("seed")
    return [
        _curve(int(seed), epochs[epochs["run_id"] == run], (both["best"][run], both["last"][run]))
        for run, seed in zip(rows["run_id"], rows["seed"], strict=True)
    ]


@rc_context(STYLE)
def training_curves(frame: pd.DataFrame, epochs: pd.DataFrame) -> Figure:
    """Robust accuracy by epoch on the left, on test images at best and last on the right; one line per run.

    Args:
        frame: rows of results.csv of one architecture, recipe and threat model at the checkpoints best and last.
        epochs: the table of `analysis.epochs.read_epochs`.

    Raises:
        InputError: if runs differ in more than the seed, or a run lacks one of the two checkpoints or its epochs.
    """
    shown = curves(frame, epochs)
    first = frame.iloc[0]
    figure = new_figure(WIDE, _HEIGHT)
    left, right = figure.subplots(1, 2, width_ratios=[2.6, 1])
    _by_epoch(left, shown)
    _best_and_last(right, shown, int(first["n_test"]))
    sizes = sorted({f"{curve.held_out_images:,} " for curve in shown if curve.held_out_images})
    title = (
        f"{first['arch']} on {first['data']}, {first['objective']}, {threat_text(str(first['train_threat']))}; "
        f"{'or '.join(sizes)}held-out images, {int(first['n_test']):,} test images with Wilson 95% intervals"
    )
    figure.suptitle(title, fontsize=7, x=0.01, ha="left")
    entries = _legend([curve.seed for curve in shown])
    columns = min(len(entries), _MOST_COLUMNS)
    figure.legend(handles=entries, loc="outside lower center", ncols=columns, columnspacing=1.2, handletextpad=0.5)
    return figure


def _by_run(group: Group) -> dict[str, float]:
    return {str(row["run_id"]): float(row["worst_case_acc"]) for row in group.rows.to_dict("records")}


def _curve(seed: int, rows: pd.DataFrame, test: tuple[float, float]) -> Curve:
    if rows.empty:
        raise invalid("metrics", f"no epochs of seed {seed}", "the epochs of every run")
    rows = rows.sort_values("epoch")
    return Curve(
        seed=seed,
        train=rows["train_acc"].tolist(),
        held_out=rows["val_robust_acc"].tolist(),
        held_out_counts=rows["val_robust_count"].tolist(),
        rates=rows["lr"].tolist(),
        test=test,
    )


def _by_epoch(axes: Axes, shown: Sequence[Curve]) -> None:
    for place, curve in enumerate(shown):
        line, last = _look(place)["ls"], len(curve.held_out) - 1
        numbers = range(1, last + 2)
        axes.plot(numbers, curve.train, ls=line, label=f"training images, seed {curve.seed}", **_TRAIN)
        axes.plot(numbers, curve.held_out, ls=line, label=f"held-out images, seed {curve.seed}", **_HELD_OUT)
        for name, epoch in (("best", curve.best), ("last", last)):
            label, at = f"{name}, seed {curve.seed}", [curve.held_out[epoch]]
            axes.plot([epoch + 1], at, **_mark(place, name), label=label)
    for epoch in shown[0].drops:
        axes.axvline(epoch + 1, color=GREY, lw=0.7, ls=":", zorder=1)
    axes.set_xlabel("Epoch (dotted: the learning rate is lowered)")
    axes.set_ylabel("Robust accuracy (%)")


def _best_and_last(axes: Axes, shown: Sequence[Curve], n: int) -> None:
    for place, curve in enumerate(shown):
        bounds = [percent_interval(value, n) for value in curve.test]
        below = [value - low for value, (low, _) in zip(curve.test, bounds, strict=True)]
        above = [high - value for value, (_, high) in zip(curve.test, bounds, strict=True)]
        xs = [position + 0.12 * (place - (len(shown) - 1) / 2) for position in (0, 1)]
        axes.errorbar(xs, curve.test, yerr=[below, above], ls=_look(place)["ls"], elinewidth=0.8, **_TEST)
        for name, x, value in zip(_CHECKPOINTS, xs, curve.test, strict=True):
            axes.plot([x], [value], **_mark(place, name))
    axes.set_xticks([0, 1], _CHECKPOINTS)
    axes.set_xlim(-0.4, 1.4)
    axes.set_xlabel("Checkpoint")
    axes.set_ylabel("Robust accuracy, test (%)")


def _look(place: int) -> dict[str, Any]:
    """Marker and line style of the seed at that place, in every panel."""
    return {"marker": _MARKERS[place % len(_MARKERS)], "ls": _LINES[place % len(_LINES)]}


def _mark(place: int, checkpoint: str) -> dict[str, Any]:
    """A seed's marker at a checkpoint; each is larger than the one behind it, so that equal values are visible."""
    shape = {"marker": _look(place)["marker"], "ls": "", "ms": 4 + 1.5 * place, "zorder": 4 - place / 10}
    return shape | _FACES[checkpoint]


def _legend(seeds: Sequence[int]) -> list[Line2D]:
    """Legend entries of the images, the seeds and the checkpoints."""
    images = {"training images": _TRAIN, "held-out images": _HELD_OUT, "test images": _TEST}
    return [
        *(Line2D([], [], **style, label=name) for name, style in images.items()),
        *(Line2D([], [], **_look(place), color=GREY, ms=4.5, label=f"seed {seed}") for place, seed in enumerate(seeds)),
        Line2D([], [], **_mark(0, "best"), label="filled: best"),
        Line2D([], [], **_mark(0, "last"), label="open: last"),
    ]
