"""The sentences of a report; every number comes with the images it was measured on."""

from __future__ import annotations

from typing import Any

import pandas as pd

from robust_arch.analysis.formatting import ABSENT, accuracy, counted
from robust_arch.analysis.groups import Group, evaluations
from robust_arch.analysis.networks import Network, half_width, networks
from robust_arch.analysis.report.figures import MOST_BARS
from robust_arch.analysis.tables import Extras, accuracy_cell
from robust_arch.runs.records import SMOOTHNESS_ATTACK

NO_FIGURE = (
    "There is nothing to draw: no run has a worst-case accuracy at its selected checkpoint (best), which the figures "
    "show."
)
NO_SHARES = "No figure 1: the share of the last stage is not recorded for these runs."

DEFINITIONS = {
    "Robust": "An image counts as robust under an attack if it is classified correctly both as it is and after the "
    "attack; robust accuracy is the share of such images among all test images.",
    "Worst case": "The share of images that every listed attack failed on; it is an upper bound on the true robust "
    "accuracy, which a stronger attack may lower.",
    "Intervals": "In brackets, and as error bars of single runs: Wilson 95% intervals, which describe the choice of "
    "test images only. Over several runs of one architecture: Student's t 95% interval of the mean, never "
    "narrower than rounding to whole test images allows.",
    "Selection": "The checkpoint best is the epoch of highest robust accuracy on held-out training images; last is the "
    "final epoch. No choice was made on test images.",
    "Weights": "raw are those of the last training step of the epoch; ema and swa are averages of them over training.",
    "Stability": f"The share of test images whose predicted class under {SMOOTHNESS_ATTACK} equals the predicted "
    "class on the clean image, right or wrong.",
    "Local Lipschitz": "The mean over images of the l1 distance between the logits of the clean and the "
    f"{SMOOTHNESS_ATTACK} image, divided by the l-infinity distance between the two images (Huang et al. 2021); "
    "smaller is smoother.",
    "Last stage's share": "Parameters of the last group of blocks divided by those of all groups; stem and head are "
    "excluded.",
    "MACs": "Multiply-accumulate operations per image; parameters alone do not tell what a network costs to run.",
}


def summary(frame: pd.DataFrame, main: Group | None, extras: Extras, budget: str, planned: int) -> list[str]:
    """What was run, and the test accuracies of the run that held-out images select."""
    sentences = [_progress(frame, budget, planned)]
    if evaluations(frame).empty:
        return [*sentences, " There are no results to show yet."]
    if main is None:
        return [*sentences, " No run has a worst-case accuracy at its selected checkpoint, so none is named as best."]
    return [*sentences, _conditions(main), _best(main, extras)]


def tables(found: list[Group], extras: Extras) -> str:
    """The sentences above the tables."""
    if not found:
        return "No run has been evaluated."
    text = (
        "One row per evaluation, with Wilson 95% intervals in brackets; architectures are numbered from fewest to most "
        "parameters. Accuracies and stability are in percent of the test images named in the row."
    )
    if len(found) > 1:
        text += f" Rows that are not comparable are in separate tables, {len(found):,} in all."
    return text + (" ★ marks the run with the highest held-out robust accuracy." if extras.selected else "")


def cut(shown: int, count: int) -> str:
    """That a table contains only the first rows; empty if it contains all."""
    if count <= shown:
        return ""
    return (
        f" The first {shown} of {count:,} rows; results.csv has all of them, and so has this page with scripts enabled."
    )


def shown(main: Group) -> str:
    """Which rows the figures show."""
    return f"Both figures show the {counted(len(main.rows), 'row')} of one group and nothing else: {main}."


def left_out(group: Group, main: Group) -> str:
    """A group that the figures do not show, and why."""
    return f"Left out, as not comparable: {counted(len(group.rows), 'row')} with {group.difference(main)}."


def figure(found: list[Network], main: Group) -> str:
    """The content of a figure for readers who cannot see it, and the meaning of its marks."""
    values = [network.robust.mean for network in found]
    low, high = (accuracy(value, main.n_test) for value in (min(values), max(values)))
    span = f"from {low}% to {high}%" if len(found) > 1 else f"at {low}%"
    return (
        f"{counted(len(found), 'architecture')}, {span} of {counted(main.n_test, 'test image')}. {_bars(found)} "
        "Numbers are those of the table; a point without a number has no room for it."
    )


def _bars(found: list[Network]) -> str:
    runs = {network.robust.runs for network in found}
    kind = "Wilson 95% interval of the run" if runs == {1} else "t 95% interval over the runs of the architecture"
    if 1 in runs and len(runs) > 1:
        kind += ", or Wilson's where there is one run"
    if len(found) <= MOST_BARS:
        return f"Error bars: {kind}."
    half = half_width(network.robust for network in found)
    return f"No error bars, as there are too many points; their median would be ±{half:.1f} points ({kind})."


def without_share(count: int) -> str:
    """The number of architectures that are not in figure 1; empty if there are none."""
    return f" {counted(count, 'architecture')} without a recorded share left out." if count else ""


def plain(value: Any) -> str:
    """A value of results.csv as text; whole numbers without a decimal point, and a dash for none."""
    if pd.isna(value):
        return ABSENT
    return f"{value:g}" if isinstance(value, float) else str(value)


def _progress(frame: pd.DataFrame, budget: str, planned: int) -> str:
    states = frame.drop_duplicates("run_id")["status"]
    done, failed, diverged = (int((states == state).sum()) for state in ("completed", "failed", "diverged"))
    under = f" under a budget of {budget}" if budget else ""
    left = max(planned - done - failed - diverged, 0)
    architectures = counted(frame["arch"].nunique(), "architecture")
    runs = f"of {counted(planned, 'planned run')}" if planned else f"of {counted(len(states), 'run')}"
    return f"{architectures}{under}; {runs} {done:,} done, {failed:,} failed, {diverged:,} diverged" + (
        f", {left:,} not finished." if left else "."
    )


def _conditions(main: Group) -> str:
    first = main.rows.iloc[0]
    return (
        f" Networks were trained on {first['data']} with objective {first['objective']} under {first['train_threat']} "
        f"and attacked under {first['threat']} by {', '.join(main.attacks)} on {counted(main.n_test, 'test image')}."
    )


def _best(main: Group, extras: Extras) -> str:
    if extras.selected is None:
        return " No held-out accuracy is recorded, so no architecture is named as best."
    row = next(row for row in main.rows.to_dict("records") if str(row["run_id"]) == extras.selected)
    arch, n = str(row["arch"]), main.n_test
    images = f"{extras.n_val:,}" if extras.n_val else "an unrecorded number of"
    held_out = f"{extras.best_val[extras.selected]:.1f}% of {images} held-out images"
    clean, worst = (accuracy_cell(row[name], n) for name in ("clean_acc", "worst_case_acc"))
    return (
        f" The highest held-out robust accuracy, {held_out}, belongs to {arch} (no. {extras.numbers[arch]}, seed "
        f"{plain(row['seed'])}). Of {counted(n, 'test image')} it classifies {clean.text}% {clean.small} correctly "
        f"without an attack and {worst.text}% {worst.small} under every attack.{_over_runs(main, arch)}"
    )


def _over_runs(main: Group, arch: str) -> str:
    robust = next(network.robust for network in networks(main) if network.arch == arch)
    if robust.sd is None:
        return ""
    values = (robust.mean, robust.low, robust.high, robust.sd)
    mean, low, high, sd = (accuracy(value, main.n_test) for value in values)
    return (
        f" Over its {robust.runs} runs the mean is {mean}% [{low}, {high}] of {counted(main.n_test, 'test image')}, "
        f"the standard deviation {sd} points."
    )
