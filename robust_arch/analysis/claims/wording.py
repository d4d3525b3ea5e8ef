"""Findings as text."""

from __future__ import annotations

from robust_arch.analysis.claims.examine import Examined
from robust_arch.analysis.claims.finding import Finding


def heading(examined: Examined) -> str:
    """What the findings under it are about, and how much seeds scatter there."""
    noise = (
        "every architecture trained once, so the scatter between seeds is not known"
        if examined.sigma is None
        else f"runs of one architecture scatter with a standard deviation of {examined.sigma:.2f} points "
        f"({examined.degrees} degrees of freedom)"
    )
    text = f"{examined.kind}; {examined.group}; {noise}."
    aside = ", ".join(f"{name} ({deviation:.2f} points)" for name, deviation in examined.unlike.items())
    return f"{text} Set aside, as runs scatter far more: {aside}." if aside else text


def numbers(finding: Finding) -> str:
    """Statistic, effect with its interval, p-value and what they rest on, in one line."""
    parts = [finding.statistic]
    if finding.effect is not None:
        parts[0] += f": {estimate(finding)}"
    if finding.p_value is not None:
        parts.append(f"p {finding.p_value:.2g}")
    parts.append(f"{finding.architectures} architectures, {finding.runs} runs, seeds an architecture: {finding.seeds}")
    return "; ".join(parts)


def estimate(finding: Finding) -> str:
    """The effect with its 95% interval, as "+1.20 points [+0.30, +2.10]"; empty where there is none."""
    if finding.effect is None:
        return ""
    value = f"{finding.effect:+.2f} {finding.unit}".strip()
    return value if finding.low is None else f"{value} [{finding.low:+.2f}, {finding.high:+.2f}]"
