"""The result of one claim on a study's runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["supported", "not supported", "too few runs"]


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
