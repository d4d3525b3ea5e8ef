"""Training curves: what the epochs after the best one do to robustness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robust_arch.analysis.groups import Group, groups
from robust_arch.analysis.plots.captions import threat_text
from robust_arch.analysis.plots.style import BLUE, GREY, ORANGE, STYLE, WIDE, new_figure
from robust_arch.analysis.points import percent_interval
from robust_arch.errors import invalid

_HEIGHT = 2.8
_MARKERS = "osD^vP"
_LINES = ("-", "--", ":", "-.")
_CHECKPOINTS = ("best", "last")


@dataclass(frozen=True)
class Curve:
    """One run: robust accuracies in percent by epoch, on training and on held-out images, and on test images.

    held_out_counts: robust held-out images by epoch. rates: learning rate by epoch. test: at best and at last.
    """

    seed: int
    train: Sequence[float]
    held_out: Sequence[float]
    held_out_counts: Sequence[float]
    rates: Sequence[float]
    test: tuple[float, float]

    @property
    def best(self) -> int:
        """The epoch, counted from 0, that `best` is of: most held-out images robust, ties to the earlier."""
        return max(range(len(self.held_out)), key=lambda epoch: (self.held_out_counts[epoch], -epoch))

    @property
    def held_out_images(self) -> int | None:
        """Their number, None where none was robust: then counts and percentages, which are all 0, do not tell."""
        count, percent = self.held_out_counts[self.best], self.held_out[self.best]
        return round(100 * count / percent) if percent else None

    @property
    def drops(self) -> list[int]:
        """Epochs, counted from 0, whose learning rate is at most half of the epoch's before."""
        return [epoch for epoch in range(1, len(self.rates)) if self.rates[epoch] <= self.rates[epoch - 1] / 2]


def curves(frame: pd.DataFrame, epochs: pd.DataFrame) -> list[Curve]:
    """The runs of a study by seed; arguments and errors as below."""
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
    """Robust accuracy by epoch on the left, on test images at best and last on the right; a line a run.

    Args:
        frame: rows of results.csv of one architecture, recipe and threat model at the checkpoints best and last.
        epochs: the table of `analysis.epochs.read_epochs`.

    Raises:
        InputError: where runs differ in more than the seed, or a run lacks one of the two checkpoints or its epochs.
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
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
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
        line, numbers = _LINES[place % len(_LINES)], range(1, len(curve.held_out) + 1)
        axes.plot(numbers, curve.train, color=ORANGE, ls=line, label=f"training images, seed {curve.seed}")
        axes.plot(numbers, curve.held_out, color=BLUE, ls=line, label=f"held-out images, seed {curve.seed}")
    for name, marker, size in (("best", "*", 9), ("last", "s", 4.5)):
        places = [curve.best if name == "best" else len(curve.held_out) - 1 for curve in shown]
        heights = [curve.held_out[epoch] for curve, epoch in zip(shown, places, strict=True)]
        axes.plot([epoch + 1 for epoch in places], heights, marker, ms=size, color="black", mec="white", label=name)
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
        marker, line = _MARKERS[place % len(_MARKERS)], _LINES[place % len(_LINES)]
        axes.errorbar(xs, curve.test, yerr=[below, above], marker=marker, ls=line, color=BLUE, elinewidth=0.8)
    axes.set_xticks([0, 1], _CHECKPOINTS)
    axes.set_xlim(-0.4, 1.4)
    axes.set_xlabel("Checkpoint")
    axes.set_ylabel("Robust accuracy, test (%)")
