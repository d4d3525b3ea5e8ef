"""The report's table of verdicts on the three claims."""

from __future__ import annotations

from collections.abc import Iterator

from robust_arch.analysis.claims import Examined, Finding, estimate, examine, heading, numbers
from robust_arch.analysis.formatting import ABSENT
from robust_arch.analysis.groups import Group
from robust_arch.analysis.markup import Markup, element, folded, joined, simple_table
from robust_arch.errors import InputError

_LEAD = (
    "The claims of Huang et al. (NeurIPS 2021), asked of this study's runs: C1, more parameters do not necessarily "
    "help adversarial robustness; C2, reducing the capacity of the last stage can improve it; C3, under one budget "
    "there is a best way to divide it over the stages. Effects stand with 95% intervals."
)
_NONE = "Nothing is said here of the claims C1, C2 and C3"
_HEAD = ("claim", "setting", "verdict", "effect")


def section(main: Group | None) -> Markup:
    """Verdicts on the rows of the main group, a table a kind of architecture; a sentence where none can be given."""
    title = element("h2", "Verdicts on the claims")
    if main is None or len(set(main.rows["arch"])) < 2:
        return joined(title, element("p", f"{_NONE}: there are no two architectures to compare."))
    try:
        found = examine(main)
    except InputError as error:
        return joined(title, element("p", f"{_NONE}: {error}"))
    if not found:
        return joined(title, element("p", f"{_NONE}: no two architectures are of one kind."))
    return joined(title, element("p", _LEAD), *(part for examined in found for part in _tables(examined)))


def _tables(examined: Examined) -> Iterator[Markup]:
    yield element("p", heading(examined), class_="caption")
    rows = [
        [finding.claim, finding.setting, finding.verdict, estimate(finding) or ABSENT] for finding in examined.findings
    ]
    table = simple_table(f"Verdicts on the claims, {examined.kind}", _HEAD, rows)
    grounds = folded("What each verdict rests on", element("dl", *map(_ground, examined.findings)))
    yield element("div", table, grounds, class_="verdicts")


def _ground(finding: Finding) -> Markup:
    return joined(
        element("dt", f"{finding.claim}, {finding.setting}: {finding.verdict}"),
        element("dd", f"{finding.statement} {finding.why}"),
        element("dd", f"{numbers(finding)}."),
    )
