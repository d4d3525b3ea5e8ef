"""The report's table of verdicts on the three claims."""

from __future__ import annotations

from collections.abc import Sequence

from robust_arch.analysis.claims import Finding
from robust_arch.analysis.markup import Markup, element, joined, simple_table

_LEAD = (
    "The claims of Huang et al. (NeurIPS 2021), asked of this study's runs: C1, more parameters do not necessarily "
    "help adversarial robustness; C2, reducing the capacity of the last stage can improve it; C3, under one budget "
    "there is a best way to divide it over the stages. Effects stand with 95% intervals."
)
_NONE = "No claim was examined: nothing is said here of C1, C2 and C3."
_HEAD = ("claim", "held fixed", "verdict", "effect", "p", "from", "statement", "why")


def section(findings: Sequence[Finding]) -> Markup:
    """One row a finding, in the order given; a sentence where there is none."""
    heading = element("h2", "Verdicts on the claims")
    if not findings:
        return joined(heading, element("p", _NONE))
    rows = [_row(finding) for finding in findings]
    return joined(heading, element("p", _LEAD), simple_table("Verdicts on the claims", _HEAD, rows, messages=(6, 7)))


def _row(finding: Finding) -> list[str]:
    return [
        finding.claim,
        finding.setting,
        finding.verdict,
        _effect(finding),
        "-" if finding.p_value is None else f"{finding.p_value:.3g}",
        f"{finding.architectures:,} architectures, {finding.runs:,} runs, seeds {finding.seeds}",
        finding.statement,
        finding.why,
    ]


def _effect(finding: Finding) -> str:
    if finding.effect is None:
        return "-"
    interval = "" if finding.low is None or finding.high is None else f" [{finding.low:.3g}, {finding.high:.3g}]"
    return f"{finding.statistic} {finding.effect:.3g}{interval} {finding.unit}".rstrip()
