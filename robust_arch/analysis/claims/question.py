"""A claim in one setting, and how its answer becomes a finding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from robust_arch.analysis.claims.differences import MOST_SEEDS, Contrast, Largest, Pairs
from robust_arch.analysis.claims.measured import Measured
from robust_arch.analysis.formatting import counted

LEVEL = 0.025
"""Level of every test, which is one-sided, so that its 95% interval excludes what the test rejects."""
SMALLEST = 1.0
"""The smallest difference of interest, in points of robust accuracy: a claim is open until it is excluded."""
LARGEST = "the largest difference of all pairs relative to its error"
ONE_SEED = (
    "Too few: only one seed per architecture, so the design's effect cannot be separated from seed noise; train at "
    "least 2 seeds. `robust-arch effects` needs one."
)


Verdict = Literal["supported", "ruled out", "too few runs", "not tested"]
"""Ruled out: an effect of interest is excluded. Not tested: no architectures of the study bear on the statement."""


@dataclass(frozen=True)
class Finding:
    """One statement, what was computed for it, and the verdict.

    Attributes:
        claim: "C1", "C2" or "C3".
        setting: what is compared, in words.
        statement: exactly what the verdict is about.
        statistic: the name of what was computed.
        unit: of the effect, "points" or empty.
        effect: value of the statistic; None where it cannot be computed.
        low: lower bound of its 95% interval.
        high: upper bound.
        p_value: one-sided; "supported" depends on it.
        architectures: number of them in the statistic.
        runs: number of them in the statistic.
        seeds: per architecture, as "3" or "1 to 3".
        verdict: on the statement.
        why: the verdict in words, with the number of runs that would decide it where there are too few.
        pair: the two architectures of a largest difference, in words.
    """

    claim: str
    setting: str
    statement: str
    statistic: str
    unit: str
    effect: float | None
    low: float | None
    high: float | None
    p_value: float | None
    architectures: int
    runs: int
    seeds: str
    verdict: Verdict
    why: str
    pair: str = ""

    @property
    def is_decided(self) -> bool:
        """Whether the verdict is "supported" or "ruled out"."""
        return self.verdict in ("supported", "ruled out")


@dataclass(frozen=True)
class Answer:
    """A verdict and its reason; the other fields are those of `Finding`."""

    verdict: Verdict
    why: str
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    pair: str = ""


@dataclass(frozen=True)
class Question:
    """A claim in one setting; the fields are those of `Finding`."""

    claim: str
    setting: str
    statement: str
    statistic: str
    unit: str = "points"

    def finding(self, found: Measured, members: np.ndarray, answer: Callable[[], Answer], nothing: str) -> Finding:
        """The answer with the numbers of runs behind it.

        Args:
            found: the architectures.
            members: positions of those in the statistic.
            answer: of the question, where there are members.
            nothing: the reason, if there are none.
        """
        counts = found.model.counts[members]
        low, high = (int(counts.min()), int(counts.max())) if len(counts) else (0, 0)
        given = answer() if len(counts) else Answer("not tested", nothing)
        return Finding(
            **vars(self),
            **vars(given),
            architectures=len(counts),
            runs=int(counts.sum()),
            seeds=str(low) if low == high else f"{low} to {high}",
        )


def judged(test: Contrast | Largest, supported: str, what: str, pair: str = "") -> Answer:
    """The verdict on a difference: it is above 0, it is too small to be of interest, or neither is shown yet.

    Args:
        test: of the difference.
        supported: the reason, if the claim is supported.
        what: where the gain would be, like "on average over 3 pairs".
        pair: the two architectures of a largest difference, in words.
    """
    seen = test.difference()
    estimate = (seen.value, seen.low, seen.high, seen.p_value, pair)
    if seen.p_value <= LEVEL:
        return Answer("supported", supported, *estimate)
    if seen.bound < SMALLEST:
        smaller = "; a smaller one is not" if seen.bound > 0 else ""
        return Answer("ruled out", f"A gain of {SMALLEST:g} point {what} is excluded{smaller}.", *estimate)
    return Answer("too few runs", _settled_by(test, seen.value, what), *estimate)


def judged_largest(found: Measured, pairs: Pairs, supported: str, noun: str = "pair", by: str = "") -> Answer:
    """The verdict on the largest difference of all pairs.

    Args:
        found: the architectures.
        pairs: of them.
        supported: the reason, if the claim is supported; a format string of {count}, {first} and {second}.
        noun: what a pair is called.
        by: what brings the gain, like "by fewer parameters, ".
    """
    if found.model.sigma is None:
        return Answer("too few runs", ONE_SEED)
    largest = Largest(found, pairs)
    first, second = largest.names()
    why = supported.format(count=counted(len(pairs), noun), first=first, second=second)
    members = f"for the only {noun}" if len(pairs) == 1 else f"for one of {len(pairs):,} {noun}s"
    return judged(largest, why, f"{by}{members}", f"{first} against {second}")


def _settled_by(test: Contrast | Largest, seen: float, what: str) -> str:
    seeds = test.seeds_to_settle(SMALLEST)
    many = f"more than {MOST_SEEDS}" if seeds is None else f"{seeds}"
    as_seen = test.seeds_to_show(seen) if seen > SMALLEST else None
    more = "" if as_seen is None else f" {as_seen} would show a gain of the {seen:.2f} points seen here."
    return (
        f"Too few: it takes {many} seeds per architecture to show a gain of {SMALLEST:g} point {what}, or to exclude "
        f"it where there is none, with a power of 80%.{more}"
    )
