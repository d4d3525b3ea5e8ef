"""Training curves: robust accuracy by epoch, before and after the best epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from robust_arch.analysis.groups import groups
from robust_arch.analysis.plots.captions import threat_text
from robust_arch.analysis.plots.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    STYLE,
    WIDE,
    letter_panels,
    new_figure,
    write_heading,
)
from robust_arch.common.statistics import percent_interval
from robust_arch.errors import invalid

_ROW, _REST = 2.0, 0.8  # inches: of an architecture, and of title and legend
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
        epochs: its rows of `analysis.epochs.read_epochs`, in order.
        test: on test images, at best and at last.
    """

    seed: int
    epochs: pd.DataFrame
    test: tuple[float, float]

    @property
    def best(self) -> int:
        """The epoch of `best`, counted from 0: the first one with most robust held-out images."""
        return int(self.epochs["val_robust_count"].argmax())

    @property
    def held_out_images(self) -> int | None:
        """Their number; None if none was ever robust, as counts and percentages are then all 0."""
        count, percent = self.epochs[["val_robust_count", "val_robust_acc"]].iloc[self.best]
        return round(100 * count / percent) if percent else None

    @property
    def drops(self) -> list[int]:
        """Epochs, counted from 0, whose learning rate is at most half that of the epoch before."""
        rates = self.epochs["lr"]
        return [int(epoch) for epoch in np.flatnonzero(rates <= rates.shift() / 2)]


def curves(frame: pd.DataFrame, epochs: pd.DataFrame) -> list[Curve]:
    """The runs of a study by seed; arguments and errors are those of `training_curves`."""
    found = groups(frame)
    test = {
        group.checkpoint: dict(zip(group.rows["run_id"], group.rows["worst_case_acc"], strict=True)) for group in found
    }
    alike = len(test) == len(found) and len(set(frame["arch"])) == 1
    if not alike or set(test) != set(_CHECKPOINTS) or test["best"].keys() != test["last"].keys():
        raise invalid("results", [str(group) for group in found], "runs of one kind at best and at last")
    rows = frame[frame["run_id"].isin(test["best"])].drop_duplicates("run_id").sort_values("seed")
    shown = []
    for run, seed in zip(rows["run_id"], rows["seed"], strict=True):
        own = epochs[epochs["run_id"] == run].sort_values("epoch")
        if own.empty:
            raise invalid("metrics", f"no epochs of seed {int(seed)}", "the epochs of every run")
        shown.append(Curve(int(seed), own, (test["best"][run], test["last"][run])))
    return shown


@rc_context(STYLE)
def training_curves(frame: pd.DataFrame, epochs: pd.DataFrame) -> Figure:
    """Robust accuracy by epoch on the left, on test images at best and last on the right; one row per architecture.

    Args:
        frame: rows of results.csv of one recipe and threat model at the checkpoints best and last.
        epochs: the table of `analysis.epochs.read_epochs`.

    Raises:
        InputError: if runs of an architecture differ in more than the seed, or a run lacks one of the two checkpoints
            or its epochs.
    """
    shown = {str(arch): curves(rows, epochs) for arch, rows in frame.groupby("arch", sort=False)}
    first = frame.iloc[0]
    figure = new_figure(WIDE, _REST + _ROW * len(shown))
    rows = figure.subplots(len(shown), 2, width_ratios=[2.6, 1], squeeze=False, sharex="col")
    for (left, right), (arch, own) in zip(rows, shown.items(), strict=True):
        _by_epoch(left, own)
        _best_and_last(right, own, int(first["n_test"]))
        if len(shown) > 1:
            left.set_title(arch)
    for axes in rows[:-1].flat:
        axes.set_xlabel("")
    letter_panels(list(rows.flat))
    everything = [curve for own in shown.values() for curve in own]
    sizes = sorted({f"{curve.held_out_images:,} " for curve in everything if curve.held_out_images})
    alone = f"{first['arch']} on " if len(shown) == 1 else ""
    title = (
        f"{alone}{first['data']}, {first['objective']}, "
        f"{threat_text(str(first['train_threat']))}; "
        f"{'or '.join(sizes)}held-out images, {int(first['n_test']):,} test images with Wilson 95% intervals"
    )
    write_heading(figure, title)
    entries = _legend(list(dict.fromkeys(curve.seed for curve in max(shown.values(), key=len))))
    columns = min(len(entries), _MOST_COLUMNS)
    figure.legend(handles=entries, loc="outside lower center", ncols=columns, columnspacing=1.2, handletextpad=0.5)
    return figure


def _by_epoch(axes: Axes, shown: Sequence[Curve]) -> None:
    for place, curve in enumerate(shown):
        line, last = _look(place)["ls"], len(curve.epochs) - 1
        numbers, held_out = range(1, last + 2), curve.epochs["val_robust_acc"].tolist()
        axes.plot(numbers, curve.epochs["train_acc"], ls=line, label=f"training images, seed {curve.seed}", **_TRAIN)
        axes.plot(numbers, held_out, ls=line, label=f"held-out images, seed {curve.seed}", **_HELD_OUT)
        for name, epoch in (("best", curve.best), ("last", last)):
            axes.plot([epoch + 1], [held_out[epoch]], **_mark(place, name), label=f"{name}, seed {curve.seed}")
    for epoch in shown[0].drops:
        axes.axvline(epoch + 1, color=GREY, lw=0.7, ls=":", zorder=1)
    axes.set_xlabel("Epoch (dotted: the learning rate is lowered)")
    axes.set_ylabel("Robust accuracy (%)")


def _best_and_last(axes: Axes, shown: Sequence[Curve], n: int) -> None:
    for place, curve in enumerate(shown):
        bounds = np.transpose([percent_interval(value, n) for value in curve.test])
        spread = np.abs(bounds - curve.test)
        xs = [position + 0.12 * (place - (len(shown) - 1) / 2) for position in (0, 1)]
        axes.errorbar(xs, curve.test, yerr=spread, ls=_look(place)["ls"], elinewidth=0.8, **_TEST)
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
