"""A claim in one setting, before anything is computed, and how its answer becomes a finding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from robust_arch.analysis.claims.differences import Difference
from robust_arch.analysis.claims.finding import Finding, Verdict
from robust_arch.analysis.claims.measured import Measured

LEVEL = 0.025
"""Of every test, which is one-sided; its 95% interval then leaves out what the test rejects."""
SMALLEST = 1.0
"""The smallest difference of interest, in points of robust accuracy: while it is not excluded, nothing is settled."""
NAMES = {"params": "parameters", "macs": "multiply-accumulates"}
ONE_SEED = "Too few: every architecture was trained once, and nothing tells design from luck; 2 seeds are the least."


@dataclass(frozen=True)
class Answer:
    """A verdict and its reason; effect, low, high: the statistic with its 95% interval."""

    verdict: Verdict
    why: str
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None


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
        counts = found.layout.counts[members]
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
        )

    def nothing(self, found: Measured, why: str) -> Finding:
        """Where no architectures of the study can be compared."""
        return self.finding(found, np.array([], dtype=int), Answer("too few runs", why))


def judged(
    difference: Difference, bound: float, seeds_for: Callable[[float], int | None], texts: tuple[str, str]
) -> Answer:
    """The verdict on a difference: above 0, or below what is of interest, or neither yet.

    bound: the largest value that is not excluded, in points. seeds_for: how many seeds an architecture would find an
    effect of so many points. texts: why it is supported, and what SMALLEST would be a gain of.
    """
    estimate = (difference.value, difference.low, difference.high, difference.p_value)
    supported, what = texts
    if difference.p_value <= LEVEL:
        return Answer("supported", supported, *estimate)
    if bound < SMALLEST:
        return Answer("not supported", f"A gain of {SMALLEST:g} point {what} is excluded.", *estimate)
    return Answer("too few runs", _settled_by(seeds_for(SMALLEST), what), *estimate)


def _settled_by(seeds: int | None, what: str) -> str:
    if seeds is None:
        return f"Too few: not even 200 seeds an architecture would be sure to show a gain of {SMALLEST:g} point {what}."
    return f"Too few: {seeds} seeds an architecture would show a gain of {SMALLEST:g} point {what} with a power of 80%."


def counted(count: int, noun: str) -> str:
    """The count with its noun, like 1 pair or 1,225 pairs."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
