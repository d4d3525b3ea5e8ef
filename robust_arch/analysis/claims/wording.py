"""Findings as text."""

from __future__ import annotations

import pandas as pd

from robust_arch.analysis.claims.examine import Examined, once
from robust_arch.analysis.claims.question import Finding
from robust_arch.analysis.formatting import counted, in_columns

_NO_BREAK = "\u00a0"


def heading(examined: Examined) -> str:
    """What the findings under it are about, and how much seeds scatter, with a warning where scatter is unequal."""
    noise = (
        "only one seed per architecture, so the scatter between seeds is not known"
        if examined.sigma is None
        else f"runs of one architecture scatter with a standard deviation of {examined.sigma:.2f} points "
        f"({examined.degrees} degrees of freedom)"
    )
    text = f"{examined.kind}; {examined.group}; {noise}."
    if examined.noisy:
        named = ", ".join(f"{name} (standard deviation {sd:.2f} points)" for name, sd in examined.noisy.items())
        text += (
            f" Warning: runs scatter far more than those of the other architectures for {named}. Every comparison "
            "includes them, so the common noise is too large for the other architectures and too small for these."
        )
    elif examined.unequal:
        text += (
            " Warning: runs scatter more about some architectures than about others, so the verdicts are less certain "
            "than they look."
        )
    if examined.sites:
        text += f" {examined.sites.sentence}"
    return text


def told(examined: Examined) -> str:
    """The heading and the findings in lines of at most 80 characters, unless a single word is longer."""
    lines = []
    for finding in examined.findings:
        verdict = finding.verdict.upper().replace(" ", _NO_BREAK)
        lines += ["", f"{finding.claim}, {finding.setting}: {verdict}"]
        lines += [f"    {text}" for text in (finding.statement, numbers(finding), finding.why)]
    return f"{in_columns([heading(examined)])}\n{in_columns(lines, indent=4)}".replace(_NO_BREAK, " ")


def left_out(frame: pd.DataFrame) -> str:
    """How many rows of results.csv are in no finding, and why; empty where there are none."""
    frame = once(frame)
    lost = frame["status"].isin(("failed", "diverged"))
    empty = ~lost & frame["worst_case_acc"].isna()
    named = [
        f"{counted(number, noun)}{rest}"
        for number, noun, rest in (
            (frame[lost]["run_id"].nunique(), "failed or diverged run", ""),
            (int(empty.sum()), "row", " without a worst-case accuracy"),
        )
        if number
    ]
    return f"Left out: {', '.join(named)}." if named else ""


def numbers(finding: Finding) -> str:
    """Statistic, effect with its interval, p-value and the numbers of runs, in one line."""
    computed = f"{finding.statistic} ({finding.pair})" if finding.pair else finding.statistic
    parts = [computed if finding.effect is None else f"{computed}: {estimate(finding)}"]
    if finding.p_value is not None:
        parts.append(f"p {finding.p_value:.2g}")
    size = f"{counted(finding.architectures, 'architecture')}, {counted(finding.runs, 'run')}"
    parts.append(f"{size}, seeds per architecture: {finding.seeds}")
    return "; ".join(parts)


def estimate(finding: Finding) -> str:
    """The effect with its 95% interval, as "+1.20 points [+0.30, +2.10]"; empty where there is none."""
    if finding.effect is None:
        return ""
    value = f"{finding.effect:+.2f} {finding.unit}".strip()
    return value if finding.low is None else f"{value} [{finding.low:+.2f}, {finding.high:+.2f}]"
