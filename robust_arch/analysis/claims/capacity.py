"""C1: more parameters, or more multiply-accumulates, do not necessarily help."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from robust_arch.analysis.claims.concordance import architectures_for, concordance, ranked
from robust_arch.analysis.claims.differences import POWER, Pairs
from robust_arch.analysis.claims.measured import RESOURCES, Measured
from robust_arch.analysis.claims.question import LARGEST, LEVEL, ONE_SEED, Answer, Finding, Question, judged_largest

SMALLEST_TAU = 1 / 3
"""The smallest decline of interest: in two of three pairs the more expensive network is the less robust one."""
_FEWEST = 5
"""Architectures: of four, no order is rare enough for a test at the 2.5% level."""


def capacity(found: Measured, resource: str) -> Iterator[Finding]:
    """C1 under one resource: over all architectures, by Kendall's tau, and for one pair of them."""
    name, more = RESOURCES[resource], found.more_expensive(resource)
    members = np.flatnonzero(more.any(axis=0) | more.any(axis=1))
    nothing = f"No two architectures differ in {name} beyond a budget's tolerance; study=capacity plans some that do."
    nothing = found.unless_unrecorded(resource, nothing)
    trend = Question(
        "C1",
        f"more {name}, over all",
        f"Over these architectures robust accuracy falls as {name} grow.",
        f"Kendall's tau between {name} and robust accuracy",
        unit="",
    )
    yield trend.finding(found, members, lambda: _trend(found, more, name, len(members)), nothing)
    single = Question(
        "C1",
        f"more {name}, one pair",
        f"More {name} do not necessarily help: an architecture with more {name} is less robust than one with fewer.",
        f"cheaper minus more expensive, {LARGEST}",
    )
    supported = f"Of {{count}}, {{second}} with more {name} is less robust than {{first}}."
    yield single.finding(found, members, lambda: _one_pair(found, more, supported, f"by fewer {name}, "), nothing)


def _one_pair(found: Measured, more: np.ndarray, supported: str, by: str) -> Answer:
    if found.model.sigma is None:  # a list of all pairs of thousands of architectures would be long
        return Answer("too few runs", ONE_SEED)
    return judged_largest(found, Pairs(*np.nonzero(more)), supported, by=by)


def _trend(found: Measured, more: np.ndarray, name: str, members: int) -> Answer:
    if not ranked(found.model.values).any():
        return Answer("too few runs", "Every architecture has the same robust accuracy, so there is no order to test.")
    rank = concordance(more, found.model.values)
    estimate = (rank.tau, rank.low, rank.high)
    if members >= _FEWEST and rank.p_falls <= LEVEL:
        return Answer("supported", f"Robust accuracy falls as {name} grow.", *estimate, rank.p_falls)
    if members >= _FEWEST and rank.low > -SMALLEST_TAU + 1e-9:
        trend = f"Robust accuracy rises with {name}" if rank.low > 1e-9 else "Neither a rise nor a fall is shown"
        why = f"{trend}; a decline in two of three pairs (tau -0.33) is excluded."
        return Answer("ruled out", why, *estimate, rank.p_falls)
    count = max(architectures_for(SMALLEST_TAU, POWER), members + 1)
    why = (
        f"Too few: {count} architectures of different cost would show a tau of -0.33, or exclude it where there is "
        "none, with a power of 80%."
    )
    return Answer("too few runs", why, *estimate, rank.p_falls)
