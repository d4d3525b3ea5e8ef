"""The sentences of a report; every number comes with the images it was measured on."""

from __future__ import annotations

from typing import Any

import pandas as pd

from robust_arch.analysis.formatting import ABSENT, accuracy, counted
from robust_arch.analysis.groups import Group, evaluations
from robust_arch.analysis.networks import networks
from robust_arch.analysis.tables import Extras, accuracy_cell
from robust_arch.runs.records import SMOOTHNESS_ATTACK

_DEFINITIONS = {
    "Robust": "An image counts as robust under an attack if it is classified correctly both as it is and after the "
    "attack; robust accuracy is the share of such images among all test images.",
    "Worst case": "The share of images that every listed attack failed on; it is an upper bound on the true robust "
    "accuracy, which a stronger attack may lower.",
    "Intervals": "Of one run, in brackets: Wilson 95% intervals, which describe the choice of test images only. Of the "
    "mean of several runs: 95% intervals from one standard deviation between seeds for all architectures of a family, "
    "never narrower than rounding to whole test images allows. After ±: the standard deviation of these runs alone.",
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

_OF_IMPORTED = {
    "Worst case": " Of imported results it is the smallest accuracy of the attacks in the table, which is at least "
    "that.",
    "Selection": " This holds for this project's own runs; the note on the source tells what best means in imported "
    "results.",
}


def definitions(*, imported: bool) -> dict[str, str]:
    """Term to meaning; imported: whether some results were not run by this project."""
    return {term: meaning + (_OF_IMPORTED.get(term, "") if imported else "") for term, meaning in _DEFINITIONS.items()}


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
        "One row per architecture, the most robust one first: means over its runs with their standard deviation after "
        "±, and 95% intervals in brackets. Accuracies and stability are in percent of the group's test images."
    )
    if len(found) > 1:
        text += f" Rows that are not comparable are in different groups, {len(found):,} in all."
    return text + (" ★ marks the run with the highest held-out robust accuracy." if extras.selected else "")


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
        f" The highest held-out robust accuracy, {held_out}, belongs to {arch} (seed "
        f"{plain(row['seed'])}). Of {counted(n, 'test image')} it classifies {clean.text}% {clean.small} correctly "
        f"without an attack and {worst.text}% {worst.small} under every attack.{_over_runs(main, arch)}"
    )


def _over_runs(main: Group, arch: str) -> str:
    robust = next(network.robust for network in networks(main) if network.arch == arch)
    if robust.sd is None:
        return ""
    mean, sd = (accuracy(value, main.n_test) for value in (robust.mean, robust.sd))
    return f" Over its {robust.runs} runs the mean is {mean}%, the standard deviation {sd} points."
