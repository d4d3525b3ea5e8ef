"""What the report says about differences between architectures, in one statistical model.

That is the claims' model, in which seeds are the replicates: the verdicts are those of `robust-arch claims`. With one
seed per architecture only the trend over architectures can be judged; then the trained networks are compared as well,
on the same test images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from robust_arch.analysis.claims import (
    Examined,
    Finding,
    answers,
    decided,
    estimate,
    examine_checkpoints,
    heading,
    not_tested,
    numbers,
)
from robust_arch.analysis.formatting import ABSENT, counted, number
from robust_arch.analysis.groups import Group
from robust_arch.analysis.paired import AdjustedComparison, against
from robust_arch.errors import InputError

_LEAD = (
    "The claims of Huang et al. (NeurIPS 2021), tested on this study's runs: C1, more parameters do not necessarily "
    "help adversarial robustness; C2, reducing the capacity of the last stage can improve it; C3, under one budget "
    "there is a best way to divide it over the stages. Effects have 95% intervals."
)
_NONE = "No verdict on the claims C1, C2 and C3"
_ONE_SEED = (
    " This study has only one seed per architecture, so that seed noise is not known: C1 is judged by the order of all "
    "architectures, and the statements about pairs of them need further seeds."
)
_UNPAIRED = (
    " A paired comparison on the same test images needs at least two runs with recorded outcomes, one of them selected "
    "on held-out images."
)
_LEVEL = 0.05
_OPEN_ROWS, _MOST_ROWS = 30, 300  # of the paired comparison: open, and folded
_HEAD = (
    "architecture",
    "seed",
    "difference in points",
    "95% interval",
    "only this",
    "only the other",
    "p",
    "p (Holm)",
)


@dataclass(frozen=True)
class Verdicts:
    """The verdicts on one kind of architecture.

    Attributes:
        kind: of architecture, in words.
        heading: what the verdicts rest on, in words.
        rows: claim, setting, verdict and effect of each tested statement, as text.
        not_tested: the other statements, in one sentence.
        grounds: each finding with its numbers in one line.
    """

    kind: str
    heading: str
    rows: list[tuple[str, str, str, str]]
    not_tested: str
    grounds: list[tuple[Finding, str]]


@dataclass(frozen=True)
class Paired:
    """Each network against the selected one, on the same test images.

    Attributes:
        lead: what is compared, and how many networks differ.
        rows: one per network, as text, under `head`.
        folded: whether there are too many rows to show at once.
        summary: of the folded rows.
        head: headings of the columns.
    """

    lead: str
    rows: list[list[str]]
    folded: bool
    summary: str
    head: tuple[str, ...] = _HEAD


@dataclass(frozen=True)
class Comparison:
    """What the section shows.

    Attributes:
        lead: what the claims are, or why there is no verdict on them.
        examined: the verdicts on each kind of architecture.
        paired: in addition, for a study of one seed per architecture.
        decided: what the main group's runs decide, at another checkpoint too; empty without verdicts.
        answers: the verdicts, one sentence per claim.
    """

    lead: str
    examined: list[Verdicts]
    paired: Paired | None = None
    decided: str = ""
    answers: Sequence[str] = ()


def section(
    frame: pd.DataFrame, main: Group | None, outcomes: Mapping[str, np.ndarray], selected: str | None
) -> Comparison:
    """Verdicts on the rows of the main group, with C1 at its other checkpoints, and the paired comparison if any.

    Args:
        frame: rows of results.csv.
        main: the rows to compare.
        outcomes: run_id to (n,) booleans, robust in the worst case or not, on the same images in the same order.
        selected: the run that the others are compared with.
    """
    if main is None or len(set(main.rows["arch"])) < 2:
        return Comparison(f"{_NONE}: there are no two architectures to compare.", [])
    paired, alone = None, ""
    if _one_run_each(main.rows):
        paired = _paired(main, outcomes, selected) if selected in outcomes and len(outcomes) > 1 else None
        alone = f"{_ONE_SEED}{'' if paired else _UNPAIRED}"
    try:
        found = examine_checkpoints(frame, main)
    except InputError as error:
        return Comparison(f"{_NONE}: {error}{'.' if alone else ''}{alone}", [], paired)
    if not found:
        return Comparison(f"{_NONE}: no two architectures are of one kind.{alone}", [], paired)
    shown = [each for each in found if each.group.key == main.key or any(f.is_decided for f in each.findings)]
    told = [(each, _where(each, found)) for each in shown]
    return Comparison(
        lead=f"{_LEAD}{alone}",
        examined=[_verdicts(examined) for examined in found],
        paired=paired,
        decided=" ".join(f"{where}{text}" for each, where in told if (text := decided(each))),
        answers=[f"{where}{text}" for each, where in told for text in answers(each)],
    )


def _where(examined: Examined, found: Sequence[Examined]) -> str:
    """What tells an answer from those on other kinds of networks and other checkpoints, like "At last: "."""
    several_kinds = len({each.kind for each in found}) > 1
    several_checkpoints = len({each.group.checkpoint for each in found}) > 1
    parts = [f"in {examined.kind}"] * several_kinds + [f"at {examined.group.checkpoint}"] * several_checkpoints
    text = ", ".join(parts)
    return f"{text[:1].upper()}{text[1:]}: " if text else ""


def _one_run_each(rows: pd.DataFrame) -> bool:
    """Whether no architecture has two seeds; runs without a recorded seed count as runs of different seeds."""
    return not rows[rows["seed"].isna() | ~rows.duplicated(["arch", "seed"])]["arch"].duplicated().any()


def _verdicts(examined: Examined) -> Verdicts:
    return Verdicts(
        kind=examined.kind,
        heading=heading(examined),
        rows=[
            (found.claim, found.setting, found.verdict, estimate(found) or ABSENT)
            for found in examined.findings
            if found.verdict != "not tested"
        ],
        not_tested=not_tested(examined),
        grounds=[(finding, numbers(finding)) for finding in examined.findings],
    )


def _paired(main: Group, outcomes: Mapping[str, np.ndarray], selected: str | None) -> Paired | None:
    rows = {str(row["run_id"]): row for row in main.rows.to_dict("records")}
    if selected is None or selected not in rows:
        return None
    found = [each for each in against(selected, outcomes) if each.run_id in rows]
    differ = sum(each.adjusted < _LEVEL for each in found)
    # the smallest p first where not all are shown; sorted keeps the order of the table among equals
    kept = found if len(found) <= _OPEN_ROWS else sorted(found, key=lambda each: each.adjusted)[:_MOST_ROWS]
    return Paired(
        lead=(
            f"These trained networks can be compared too: each against {rows[selected]['arch']} (seed "
            f"{number(rows[selected]['seed'], 0)}), which held-out images selected, on the same "
            f"{counted(main.n_test, 'test image')}, in the worst case over {', '.join(main.attacks)}, by McNemar's "
            f"exact test. Of {counted(len(found), 'network')} {differ:,} differ from it at the 5% level after Holm's "
            "correction. Training with another seed would give different networks, and may give a different order."
        ),
        rows=[_row(rows[each.run_id], each) for each in kept],
        folded=len(found) > _OPEN_ROWS,
        summary=f"The {len(kept):,} of {len(found):,} networks with the smallest p",
    )


def _row(row: Mapping[object, object], adjusted: AdjustedComparison) -> list[str]:
    found = adjusted.comparison
    # the selected network comes first in the comparison; a reader looks for the row's own gain
    return [
        str(row["arch"]),
        number(row["seed"], 0),
        f"{-100 * found.difference:+.1f}",
        f"{-100 * found.high:+.1f} to {-100 * found.low:+.1f}",
        str(found.only_second),
        str(found.only_first),
        f"{found.p_value:.3g}",
        f"{adjusted.adjusted:.3g}",
    ]
