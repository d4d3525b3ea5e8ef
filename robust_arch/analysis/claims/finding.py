"""What a study's runs say of one claim."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["supported", "not supported", "too few runs"]


@dataclass(frozen=True)
class Finding:
    """One statement, what was computed for it, and the verdict.

    claim: "C1", "C2" or "C3". setting: what is compared, in words. statement: what the verdict is about, exactly.
    statistic: the name of what was computed. effect: its value in `unit`, with the bounds of its 95% interval; None
    where it cannot be computed. p_value: one-sided, what "supported" rests on. architectures, runs: behind the
    statistic. seeds: of an architecture, as "3" or "1 to 3". why: the verdict in words, with what would settle it
    where runs are too few. pair: the two architectures of a largest difference, in words.
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
