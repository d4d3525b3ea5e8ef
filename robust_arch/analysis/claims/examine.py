"""All three claims, each under both kinds of budget, tested on comparable runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pandas as pd

from robust_arch.analysis.claims.allocation import against_equal_shares, against_equal_widening
from robust_arch.analysis.claims.capacity import capacity
from robust_arch.analysis.claims.finding import Finding
from robust_arch.analysis.claims.last_stage import last_stage_alone, last_stage_refilled
from robust_arch.analysis.claims.measured import RESOURCES, Measured, measured
from robust_arch.analysis.groups import Group, groups


@dataclass(frozen=True)
class Examined:
    """The findings on comparable runs of one kind of architecture.

    Attributes:
        group: the comparable rows.
        kind: family, stem width, activation and dropout, in words.
        sigma: standard deviation in points of a run about its architecture's mean; None where no architecture was
            trained twice.
        degrees: of freedom of `sigma`.
        noisy: architectures whose runs scatter far more than those of the others, with their standard deviations in
            points. They are part of every comparison.
        unequal: whether the scatter differs between architectures by more than chance.
        findings: one per claim and setting.
    """

    group: Group
    kind: str
    sigma: float | None
    degrees: int
    noisy: Mapping[str, float]
    unequal: bool
    findings: tuple[Finding, ...]


def examine_all(frame: pd.DataFrame) -> list[Examined]:
    """Every group of comparable rows at the checkpoint `best` with at least two architectures, the largest first.

    Args:
        frame: rows of results.csv, of one study or of several; a run that is in several counts once.

    Raises:
        InputError: for an architecture of no known family.
    """
    rows = once(frame)
    done = rows[rows["status"].isin(("completed", "running")) & rows["worst_case_acc"].between(0, 100)]
    found = sorted(filter(_has_two_architectures, groups(done)), key=lambda group: -len(group.rows))
    return [examined for group in found for examined in examine(group)]


def once(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of one study or of several, without duplicates of runs that are in several."""
    return frame.drop(columns="study").drop_duplicates().assign(study="")


def _has_two_architectures(group: Group) -> bool:
    return group.checkpoint == "best" and len(group.rows.drop_duplicates(["arch", "family", "depths", "widths"])) > 1


def examine(group: Group) -> list[Examined]:
    """The claims, tested on each kind of architecture with at least two in a group, the most frequent kind first.

    Architectures of different kinds are not compared with one another. Verdicts are about the test images of the group:
    the intervals do not include the variation over other test images.

    Raises:
        InputError: for an architecture of no known family.
    """
    return [
        Examined(
            group, kind, found.model.sigma, found.model.degrees, found.noisy, found.unequal, tuple(_findings(found))
        )
        for kind, found in measured(group.rows).items()
        if len(found.names) > 1
    ]


def _findings(found: Measured) -> Iterator[Finding]:
    for resource in RESOURCES:
        yield from capacity(found, resource)
    if not found.specs:  # C2 and C3 are about stages
        return
    yield from last_stage_alone(found)
    for resource in RESOURCES:
        yield from last_stage_refilled(found, resource)
    for against in (against_equal_shares, against_equal_widening):
        for resource in RESOURCES:
            yield against(found, resource)
