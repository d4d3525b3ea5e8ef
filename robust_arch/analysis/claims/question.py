"""A claim in one setting, before anything is computed, and how its answer becomes a finding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from robust_arch.analysis.claims.differences import MOST_SEEDS, Difference, Largest, Pairs
from robust_arch.analysis.claims.finding import Finding, Verdict
from robust_arch.analysis.claims.measured import Measured
from robust_arch.analysis.formatting import counted

LEVEL = 0.025
"""Of every test, which is one-sided; its 95% interval then leaves out what the test rejects."""
SMALLEST = 1.0
"""The smallest difference of interest, in points of robust accuracy: while it is not excluded, nothing is settled."""
NAMES = {"params": "parameters", "macs": "multiply-accumulates"}
LARGEST = "of all pairs the difference that is largest against its error"
ONE_SEED = "Too few: every architecture was trained once, and nothing tells design from luck; 2 seeds are the least."


@dataclass(frozen=True)
class Answer:
    """A verdict and its reason; effect, low, high: the statistic with its 95% interval; pair: as of `Finding`."""

    verdict: Verdict
    why: str
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    pair: str = ""


class Test(Protocol):
    """A difference, or the largest of many, and how many seeds an architecture it takes to settle it."""

    def difference(self) -> Difference:
        """What these runs show."""

    def bound(self) -> float:
        """The largest difference in points that these runs do not exclude."""

    def seeds_to_show(self, effect: float) -> int | None:
        """Runs of each architecture that find a true difference of `effect` points with power 0.8."""

    def seeds_to_settle(self, effect: float) -> int | None:
        """The same, which also exclude it with power 0.8 where nothing differs."""


@dataclass(frozen=True)
class Question:
    """A claim in one setting; fields as of `Finding`."""

    claim: str
    setting: str
    statement: str
    statistic: str
    unit: str = "points"

    def finding(self, found: Measured, members: np.ndarray, answer: Answer) -> Finding:
        """The answer, with what it rests on; members: positions of the architectures that take part."""
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
        """Where no architectures of the study can be compared."""
        return self.finding(found, np.array([], dtype=int), Answer("too few runs", why))


def judged(test: Test, supported: str, what: str, pair: str = "") -> Answer:
    """The verdict on a difference: above 0, or below what is of interest, or neither yet.

    supported: why, if it is. what: in words, what a gain would be of, like "on average over 3 pairs".
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

    supported: why, if it is, of {count} pairs, the {first} and the {second} architecture of the largest difference.
    noun: what a pair is called. by: in words, with a space after them, what a gain is reached by.
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
    more = "" if as_seen is None else f" One as large as the {seen:.2f} points seen here would be shown by {as_seen:,}."
    return (
        f"Too few: {many} seeds an architecture would show a gain of {SMALLEST:g} point {what}, or exclude it where "
        f"there is none, with a power of 80%.{more}"
    )


def unless_unrecorded(found: Measured, resource: str, why: str) -> str:
    """Why nothing can be compared: `why`, unless no cost is recorded."""
    return why if np.isfinite(found.costs[resource]).any() else f"No run has its {NAMES[resource]} recorded."
