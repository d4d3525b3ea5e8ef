"""C1: more parameters, or more multiply-accumulates, do not necessarily help."""

from __future__ import annotations

import numpy as np

from robust_arch.analysis.claims.concordance import Concordance, architectures_for, concordance
from robust_arch.analysis.claims.differences import POWER, Difference, Largest, Pairs
from robust_arch.analysis.claims.finding import Finding
from robust_arch.analysis.claims.measured import Measured
from robust_arch.analysis.claims.question import ALPHA, NAMES, ONE_SEED, Answer, Question

SMALLEST_TAU = 1 / 3
"""The smallest decline of interest: in two of three pairs the dearer network is the less robust one."""


def capacity(found: Measured, resource: str) -> Finding:
    """C1 under one resource: Kendall's tau below 0, or a dearer architecture that is less robust than a cheaper one.

    Each is tested at the one-sided 2.5% level, so that "supported" is wrong in at most 5% of studies in which cost and
    robust accuracy have nothing to do with each other.
    """
    name = NAMES[resource]
    question = Question(
        claim="C1",
        setting=f"more {name}",
        statement=f"More {name} do not necessarily help: robust accuracy falls as {name} grow, or one architecture "
        f"with more {name} is less robust than one with fewer.",
        statistic=f"Kendall's tau between {name} and robust accuracy",
        unit="",
    )
    dearer = found.dearer(resource)
    if not dearer.any():
        return question.nothing(found, f"No two architectures differ in {name}; study=capacity plans some that do.")
    members = np.flatnonzero(dearer.any(axis=0) | dearer.any(axis=1))
    return question.finding(found, members, _answer(found, dearer, name, len(members)))


def _answer(found: Measured, dearer: np.ndarray, name: str, members: int) -> Answer:
    rank = concordance(dearer, found.means)
    if found.sigma is None:
        return Answer("too few runs", f"Too few: {ONE_SEED}.", rank.tau, rank.low, rank.high)
    drop = Largest(found, Pairs(*np.nonzero(dearer)))
    largest = drop.difference()
    p_value = min(1.0, 2 * min(rank.p_falls, largest.p_value))
    if p_value <= ALPHA:
        return Answer("supported", _supported(rank, drop, largest, name), rank.tau, rank.low, rank.high, p_value)
    if rank.low > 0:
        why = f"Robust accuracy rises with {name}; what is not excluded is one that falls by {drop.bound():.1f} points."
        return Answer("not supported", why, rank.tau, rank.low, rank.high, p_value)
    if rank.low > -SMALLEST_TAU:
        why = (
            f"A decline in two of three pairs (tau -0.33) is excluded, and the largest drop, {largest.value:.1f} "
            f"points from {' to '.join(drop.names())}, is within the noise."
        )
        return Answer("not supported", why, rank.tau, rank.low, rank.high, p_value)
    count = max(architectures_for(SMALLEST_TAU, POWER), members + 1)
    why = f"Too few: {count} architectures of different cost would show a tau of -0.33 with a power of 80%."
    return Answer("too few runs", why, rank.tau, rank.low, rank.high, p_value)


def _supported(rank: Concordance, drop: Largest, largest: Difference, name: str) -> str:
    parts = []
    if 2 * rank.p_falls <= ALPHA:
        parts.append(f"robust accuracy falls as {name} grow (tau {rank.tau:+.2f}, p {rank.p_falls:.2g})")
    if 2 * largest.p_value <= ALPHA:
        better, worse = drop.names()
        parts.append(
            f"of {len(drop.pairs):,} pairs, adjusted for all, {worse} with more {name} than {better} is "
            f"{largest.value:.1f} [{largest.low:.1f}, {largest.high:.1f}] points less robust"
        )
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}."
