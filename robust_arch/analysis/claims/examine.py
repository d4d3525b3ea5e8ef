"""All three claims, each under both kinds of budget, asked of comparable runs."""

from __future__ import annotations

from collections.abc import Iterator

from robust_arch.analysis.claims.allocation import against_equal_shares, against_equal_widening
from robust_arch.analysis.claims.capacity import capacity
from robust_arch.analysis.claims.finding import Finding
from robust_arch.analysis.claims.last_stage import last_stage_alone, last_stage_refilled
from robust_arch.analysis.claims.measured import RESOURCES, Measured, measured
from robust_arch.analysis.groups import Group


def examine(group: Group) -> dict[str, list[Finding]]:
    """Kind of architecture (family, stem width, activation) to the findings on C1, C2 and C3.

    Architectures of different kinds are not compared with one another. Verdicts speak of the test images of the group;
    what other test images would give is no part of the intervals.

    Raises:
        InputError: for an architecture of no known family.
    """
    return {kind: list(_findings(found)) for kind, found in measured(group.rows).items()}


def _findings(found: Measured) -> Iterator[Finding]:
    for resource in RESOURCES:
        yield capacity(found, resource)
    yield last_stage_alone(found)
    for resource in RESOURCES:
        yield last_stage_refilled(found, resource)
    for resource in RESOURCES:
        yield against_equal_shares(found, resource)
    for resource in RESOURCES:
        yield against_equal_widening(found, resource)
