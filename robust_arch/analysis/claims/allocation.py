"""C3: for one budget, some division over the stages is best for adversarial robustness."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np

from robust_arch.analysis.claims.differences import Pairs
from robust_arch.analysis.claims.measured import RESOURCES, Measured
from robust_arch.analysis.claims.question import Finding, Question, judged_largest
from robust_arch.architectures import ArchSpec

_NEARLY_EQUAL = 0.1
"""The largest difference of a uniform allocation's share from 1 / stages."""
_BUDGETS = {"params": "study=budget", "macs": "study=budget search.budget.params=null search.budget.macs=arch"}
_PLANNED = (
    "{study} plans allocations, study=capacity the usual network that costs as much; both studies can be read together."
)

Choice = Callable[[Measured, np.ndarray], int | None]
"""Chooses the uniform allocation among the positions of architectures of equal cost, if there is one."""


def against_equal_shares(found: Measured, resource: str) -> Finding:
    """C3 against the allocation that is nearest to equal shares of `resource` for all stages."""
    return _finding(found, resource, "equal shares", partial(_equal_shares, resource))


def against_equal_widening(found: Measured, resource: str) -> Finding:
    """C3 against the usual proportions: equal depths, and widths that double from stage to stage."""
    return _finding(found, resource, "equal widening factors", _equal_widening)


def _finding(found: Measured, resource: str, reference: str, choose: Choice) -> Finding:
    name = RESOURCES[resource]
    question = Question(
        claim="C3",
        setting=f"equal {name}, against {reference}",
        statement=f"At equal {name} some allocation over the stages is more robust than the one of {reference}, also "
        "after correction for choosing the best of all that were tried.",
        statistic="allocation minus uniform, the largest difference relative to its error",
    )
    first: list[int] = []
    second: list[int] = []
    for window in found.windows(resource):
        if (uniform := choose(found, window)) is not None:
            others = [int(position) for position in window if position != uniform]
            first += others
            second += [uniform] * len(others)
    pairs = Pairs(np.array(first, dtype=int), np.array(second, dtype=int))
    planned = _PLANNED.format(study=_BUDGETS[resource])
    why = f"No two architectures of equal {name}, one of them of {reference}; {planned}"
    nothing = found.unless_unrecorded(resource, why)
    supported = "{first} is more robust than {second}, as the best of {count}."
    return question.finding(
        found, pairs.members, lambda: judged_largest(found, pairs, supported, noun="allocation"), nothing
    )


def _equal_shares(resource: str, found: Measured, window: np.ndarray) -> int | None:
    stages = found.stages[resource][window]
    away = np.abs(stages / stages.sum(axis=1, keepdims=True) - 1 / stages.shape[1]).max(axis=1)
    nearest = int(np.argmin(away))
    return int(window[nearest]) if away[nearest] <= _NEARLY_EQUAL else None


def _equal_widening(found: Measured, window: np.ndarray) -> int | None:
    def is_usual(spec: ArchSpec) -> bool:
        return len(set(spec.depths)) == 1 and all(after == 2 * before for before, after in pairwise(spec.widths))

    usual = [int(position) for position in window if is_usual(found.specs[position])]
    return min(usual, key=lambda position: max(found.specs[position].depths), default=None)
