"""A claim in one setting, before anything is computed, and how its answer becomes a finding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robust_arch.analysis.claims.finding import Finding, Verdict
from robust_arch.analysis.claims.measured import Measured

ALPHA = 0.05
SMALLEST = 1.0
"""The smallest difference of interest, in points of robust accuracy: while it is not excluded, nothing is settled."""
NAMES = {"params": "parameters", "macs": "multiply-accumulates"}
ONE_SEED = "every architecture was trained once, so nothing tells its design from luck; 2 seeds show how large luck is"


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
        counts = found.counts[members]
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


def settled_by(seeds: int | None, effect: str) -> str:
    """How many seeds would settle it, in words."""
    if seeds is None:
        return f"not even 200 seeds an architecture would be sure to show {effect}"
    return f"{seeds} seeds an architecture would show {effect} with a power of 80%"
