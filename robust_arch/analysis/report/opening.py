"""How a study's report opens: its question, the answer, and the figures that show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from robust_arch.analysis.formatting import accuracy, counted
from robust_arch.analysis.groups import Group, at_last, main_group
from robust_arch.analysis.networks import by_rank, networks
from robust_arch.analysis.plots.of_study import figures_of
from robust_arch.analysis.plots.study_figure import StudyFigure
from robust_arch.common.statistics import mean_interval, rounding_deviation

_QUESTIONS = {
    "stage_width": "What is the effect of one stage's width?",
    "stage_depth": "What is the effect of one stage's depth?",
    "simplex": "Which division of one budget over the stages is the most robust?",
    "stage_shares": "Which division of one budget over the stages is the most robust?",
    "last_stage": "Does a smaller last stage help?",
    "cost": "Does capacity help?",
    "training_curves": "Does robust accuracy fall after its best epoch?",
}
_FAMILIES = "Do the results hold in another family?"
_OTHER = "Which of these architectures are the most robust?"


@dataclass(frozen=True)
class Opening:
    """The head of a study's report.

    Attributes:
        question: of the study.
        answer: what is decided, or else the range of accuracies.
        facts: the rest of the answer, one sentence each.
        figures: the most telling one first.
    """

    question: str
    answer: str
    facts: Sequence[str]
    figures: Sequence[StudyFigure]


def opening(
    frame: pd.DataFrame, epochs: pd.DataFrame | None, decided: str, verdicts: Sequence[str], prefix: str
) -> Opening:
    """The opening of one study.

    Args:
        frame: rows of results.csv.
        epochs: the table of `analysis.epochs.read_epochs`; None where epochs are not recorded.
        decided: what these runs decide about the claims; empty without verdicts.
        verdicts: on the claims, one sentence each.
        prefix: of the figures' names, which must be unique on a page.
    """
    main = main_group(frame)
    # families are compared at their cost
    several = len(set(frame["family"])) > 1
    figures = sorted(figures_of(frame, epochs), key=lambda figure: several and not figure.name.startswith("cost"))
    question = _question(figures, several=several)
    named = [replace(figure, name=f"{prefix}{figure.name}") for figure in figures]
    if main is None:
        answer = "There is no answer yet: no run has a worst-case accuracy at its best checkpoint."
        return Opening(question, answer, (), named)
    answer, *facts = filter(None, (decided, _span(main), _after_best(frame, main), *verdicts))
    return Opening(question, answer, facts, named)


def _question(figures: Sequence[StudyFigure], *, several: bool) -> str:
    kind = next((kind for kind in _QUESTIONS if figures and figures[0].name.startswith(kind)), "")
    return _FAMILIES if several and figures else _QUESTIONS.get(kind, _OTHER)


def _span(main: Group) -> str:
    """The most and the least robust architecture."""
    ranked = by_rank(networks(main))
    images = counted(main.n_test, "test image")
    first, last = (
        f"{accuracy(network.robust.mean, main.n_test)}% ({network.arch})" for network in (ranked[0], ranked[-1])
    )
    if len(ranked) == 1:
        return f"Worst-case robust accuracy is {first} of {images}, {_means(main)}."
    return (
        f"Worst-case robust accuracy of {len(ranked):,} architectures lies between {last} and {first} of {images}, "
        f"{_means(main)}."
    )


def _means(main: Group) -> str:
    seeds = sorted(set(main.rows.groupby("arch", sort=False).size()))
    if seeds[-1] == 1:
        return "with one seed each, so that seed noise is in these numbers"
    return f"as means over {' to '.join(map(str, sorted({seeds[0], seeds[-1]})))} seeds"


def _after_best(frame: pd.DataFrame, main: Group) -> str:
    """The mean change of robust accuracy from the best to the last epoch over all runs, with its t interval."""
    last = at_last(frame, main)
    if last is None or main.checkpoint != "best":
        return ""
    pairs = (
        main.rows.set_index("run_id")["worst_case_acc"]
        .to_frame("best")
        .join(last.rows.set_index("run_id")["worst_case_acc"])
    )
    changes = (pairs["worst_case_acc"] - pairs["best"]).dropna().tolist()
    if not changes:
        return ""
    mean, low, high = mean_interval(changes, least_deviation=rounding_deviation(100 / main.n_test))
    interval = "" if low is None else f" [{low:+.2f}, {high:+.2f}]"
    over = counted(len(changes), "run")
    return f"From the best to the last epoch robust accuracy changes by {mean:+.2f} points{interval} ({over})."
