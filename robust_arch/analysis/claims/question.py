"""A claim in one setting, and how its answer becomes a finding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from robust_arch.analysis.claims.differences import MOST_SEEDS, Difference, Largest, Pairs
from robust_arch.analysis.claims.finding import Finding, Verdict
from robust_arch.analysis.claims.measured import Measured
from robust_arch.analysis.formatting import counted

LEVEL = 0.025
"""Level of every test, which is one-sided, so that its 95% interval excludes what the test rejects."""
SMALLEST = 1.0
"""The smallest difference of interest, in points of robust accuracy: a claim is open until it is excluded."""
NAMES = {"params": "parameters", "macs": "multiply-accumulates"}
LARGEST = "the largest difference of all pairs relative to its error"
ONE_SEED = (
    "Too few: only one seed per architecture, so the design's effect cannot be separated from seed noise; train at "
    "least 2 seeds. `robust-arch effects` needs one."
)


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


class Test(Protocol):
    """A difference, or the largest of many, and the number of seeds per architecture that would decide it."""

    def difference(self) -> Difference:
        """The difference in these runs."""

    def bound(self) -> float:
        """The largest difference in points that these runs do not exclude."""

    def seeds_to_show(self, effect: float) -> int | None:
        """Seeds per architecture that find a true difference of `effect` points with power 0.8."""

    def seeds_to_settle(self, effect: float) -> int | None:
        """The same, and that exclude it with power 0.8 where nothing differs."""


@dataclass(frozen=True)
class Question:
    """A claim in one setting; the fields are those of `Finding`."""

    claim: str
    setting: str
    statement: str
    statistic: str
    unit: str = "points"

    def finding(self, found: Measured, members: np.ndarray, answer: Answer) -> Finding:
        """The answer with the numbers of runs behind it; members: positions of the architectures in the statistic."""
        counts = found.model.counts[members]
        low, high = (int(counts.min()), int(counts.max())) if len(counts) else (0, 0)
        return Finding(
            claim=self.claim,
            setting=self.setting,
            statement=self.statement,
            statistic=self.statistic,
            unit=self.unit,
            effect=answer.effect,
            low=answer.low,
            high=answer.high,
            p_value=answer.p_value,
            architectures=len(counts),
            runs=int(counts.sum()),
            seeds=str(low) if low == high else f"{low} to {high}",
            verdict=answer.verdict,
            why=answer.why,
            pair=answer.pair,
        )

    def nothing(self, found: Measured, why: str) -> Finding:
        """The finding where no architectures of the study can be compared."""
        return self.finding(found, np.array([], dtype=int), Answer("too few runs", why))


def judged(test: Test, supported: str, what: str, pair: str = "") -> Answer:
    """The verdict on a difference: it is above 0, it is too small to be of interest, or neither is shown yet.

    Args:
        test: of the difference.
        supported: the reason, if the claim is supported.
        what: where the gain would be, like "on average over 3 pairs".
        pair: the two architectures of a largest difference.
    """
    seen, bound = test.difference(), test.bound()
    estimate = (seen.value, seen.low, seen.high, seen.p_value, pair)
    if seen.p_value <= LEVEL:
        return Answer("supported", supported, *estimate)
    if bound < SMALLEST:
        smaller = "; a smaller one is not" if bound > 0 else ""
        return Answer("not supported", f"A gain of {SMALLEST:g} point {what} is excluded{smaller}.", *estimate)
    return Answer("too few runs", _settled_by(test, seen.value, what), *estimate)


def judged_largest(found: Measured, pairs: Pairs, supported: str, noun: str = "pair", by: str = "") -> Answer:
    """The verdict on the largest difference of all pairs.

    Args:
        found: the architectures.
        pairs: of them.
        supported: the reason, if the claim is supported; a format string of {count}, {first} and {second}.
        noun: what a pair is called.
        by: what the gain is reached by, in words that end in a space.
    """
    if found.model.sigma is None:
        return Answer("too few runs", ONE_SEED)
    largest = Largest(found, pairs)
    first, second = largest.names()
    why = supported.format(count=counted(len(pairs), noun), first=first, second=second)
    members = f"for the only {noun}" if len(pairs) == 1 else f"for one of {len(pairs):,} {noun}s"
    return judged(largest, why, f"{by}{members}", f"{first} against {second}")


def _settled_by(test: Test, seen: float, what: str) -> str:
    seeds = test.seeds_to_settle(SMALLEST)
    many = f"not even {MOST_SEEDS:,}" if seeds is None else f"{seeds:,}"
    as_seen = test.seeds_to_show(seen) if seen > SMALLEST else None
    more = "" if as_seen is None else f" {as_seen:,} would show a gain of the {seen:.2f} points seen here."
    return (
        f"Too few: {many} seeds per architecture would show a gain of {SMALLEST:g} point {what}, or exclude it where "
        f"there is none, with a power of 80%.{more}"
    )


def unless_unrecorded(found: Measured, resource: str, why: str) -> str:
    """The reason why nothing can be compared: `why`, unless no cost is recorded."""
    return why if np.isfinite(found.costs[resource]).any() else f"No run has its {NAMES[resource]} recorded."
