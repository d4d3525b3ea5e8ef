"""Findings as text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from textwrap import TextWrapper

import pandas as pd

from robust_arch.analysis.claims.examine import Examined, once, uncompared
from robust_arch.analysis.claims.question import Finding
from robust_arch.analysis.formatting import ABSENT, COLUMNS, counted, in_columns
from robust_arch.analysis.groups import Group

LEGEND = (
    "Supported: shown at the 2.5% level. Ruled out: an effect of interest (a gain of 1 point, or a tau of -1/3) is "
    "excluded. Too few runs: neither. Effects are in points of robust accuracy, or Kendall's tau. --verbose gives each "
    "statement with its test, its reason, and the number of seeds that would settle it."
)
"""What the words in `verdict_table` mean."""
_CLAIMS = {
    "C1": "more capacity lowers robust accuracy",
    "C2": "a smaller last stage helps, the others kept or grown to an equal cost",
    "C3": "some allocation of a budget is more robust than the uniform one",
}
_DECIDED = {"supported": 0, "ruled out": 1}
_HEAD = ("verdict", "effect [95% interval]", "runs")
_INDENT, _GAP = " " * 4, 2
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


def verdict_table(examined: Examined) -> str:
    """The heading and one row per tested statement, at most 80 characters wide; then the statements not tested."""
    tested = [finding for finding in examined.findings if finding.verdict != "not tested"]
    cells = [(finding.verdict, _short_estimate(finding), f"{finding.runs:,}") for finding in tested]
    widths = [max(map(len, column)) for column in zip(_HEAD, *cells, strict=True)]
    first = COLUMNS - sum(widths) - _GAP * len(widths)
    wrap = TextWrapper(first, initial_indent=_INDENT, subsequent_indent=_INDENT + "  ", break_on_hyphens=False)
    lines = [in_columns([heading(examined)]), ""]
    if tested:
        lines.append(_row("", _HEAD, first, widths))
    claim = ""
    for finding, row in zip(tested, cells, strict=True):
        if finding.claim != claim:
            claim = finding.claim
            lines.append(f"{claim}  {_CLAIMS[claim]}")
        label, *rest = wrap.wrap(_setting(finding))
        lines += [_row(label, row, first, widths), *rest]
    if missing := not_tested(examined):
        lines += ["", in_columns([missing])]
    return "\n".join(lines)


def decided(examined: Examined) -> str:
    """What these runs decide, without numbers; empty where the study bears on no claim."""
    found: dict[str, dict[str, list[str]]] = {verdict: {} for verdict in _DECIDED}
    for finding in examined.findings:
        if finding.is_decided:
            found[finding.verdict].setdefault(finding.claim, []).append(_setting(finding))
    parts = []
    for verdict, claims in found.items():
        named = [f"{_CLAIMS[claim].partition(',')[0]} ({claim}: {'; '.join(own)})" for claim, own in claims.items()]
        parts += [f"{verdict.capitalize()}: {'; '.join(named)}."] if named else []
    tested = dict.fromkeys(finding.claim for finding in examined.findings if finding.verdict != "not tested")
    if still_open := [claim for claim in tested if not any(claim in claims for claims in found.values())]:
        parts.append(f"Not decided by these runs: {', '.join(still_open)}.")
    return " ".join(parts)


def answers(examined: Examined) -> list[str]:
    """All verdicts, in one sentence per claim that the study bears on."""
    return list(filter(None, (_verdicts_on(claim, examined.findings) for claim in _CLAIMS)))


def _verdicts_on(claim: str, findings: Sequence[Finding]) -> str:
    """All verdicts on a claim, with the effects of those that are decided."""
    told: dict[str, list[str]] = {}
    for finding in sorted(findings, key=lambda found: _DECIDED.get(found.verdict, len(_DECIDED))):
        if finding.claim == claim and finding.verdict != "not tested":
            effect = f": {_named_estimate(finding)}" if finding.is_decided else ""
            told.setdefault(finding.verdict, []).append(_setting(finding) + effect)
    verdicts = ", ".join(f"{verdict} ({'; '.join(settings)})" for verdict, settings in told.items())
    text = _CLAIMS[claim]
    return f"{text[0].upper()}{text[1:]} ({claim}): {verdicts}." if verdicts else ""


def _row(label: str, cells: tuple[str, ...], first: int, widths: list[int]) -> str:
    gap = " " * _GAP
    texts = [f"{cell:<{width}}" for cell, width in zip(cells[:-1], widths[:-1], strict=True)]
    return gap.join([f"{label:<{first}}", *texts, f"{cells[-1]:>{widths[-1]}}"]).rstrip()


def not_tested(examined: Examined) -> str:
    """The statements that no architectures of the study bear on, in one sentence; empty where there are none."""
    named = dict.fromkeys(
        f"{finding.claim} {re.sub(', (over all|on average|one pair)$', '', _short(finding))}"
        for finding in examined.findings
        if finding.verdict == "not tested"
    )
    return f"Not tested by this study: {'; '.join(named)}." if named else ""


def _short(finding: Finding) -> str:
    """The setting without what every setting of its claim has in common."""
    return finding.setting.removeprefix("smaller last stage, ").replace("multiply-accumulates", "MACs")


def _setting(finding: Finding) -> str:
    """As `_short`, where the claim is named beside it: an equal cost tells that the other stages were grown."""
    return _short(finding).removeprefix("others grown, ")


def _short_estimate(finding: Finding) -> str:
    """The effect with its 95% interval, as "+1.20 [+0.30, +2.10]" for points, or "tau +0.20 [-0.10, +0.50]"."""
    return _named_estimate(finding).replace(" points", "") or ABSENT


def _named_estimate(finding: Finding) -> str:
    """As `estimate`, with the name of Kendall's tau."""
    return f"tau {estimate(finding)}" if finding.effect is not None and not finding.unit else estimate(finding)


def told(examined: Examined) -> str:
    """The heading and the findings in lines of at most 80 characters, unless a single word is longer."""
    lines = []
    for finding in examined.findings:
        verdict = finding.verdict.upper().replace(" ", _NO_BREAK)
        lines += ["", f"{finding.claim}, {finding.setting}: {verdict}"]
        computed = [] if finding.verdict == "not tested" else [numbers(finding)]
        lines += [f"    {_unbroken(text)}" for text in (finding.statement, *computed, finding.why)]
    return f"{in_columns([heading(examined)])}\n{in_columns(lines, indent=4)}".replace(_NO_BREAK, " ")


def _unbroken(text: str) -> str:
    """The text with intervals and numbers of seeds that stay in one line."""
    return re.sub(r"\[[^]]*\]|per architecture: .*", lambda found: found[0].replace(" ", _NO_BREAK), text)


def left_out(frame: pd.DataFrame, main: Group) -> str:
    """How many rows of results.csv are in no finding, and why; empty where there are none.

    Args:
        frame: rows of results.csv.
        main: the rows that are compared, from which the others differ.
    """
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
    named += [
        f"{counted(len(group.rows), 'row')} of {group.rows['arch'].iloc[0]} that no other architecture's compare with "
        f"({group.difference(main)})"
        for group in uncompared(frame)
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
