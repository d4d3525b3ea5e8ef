"""All three claims, each under both kinds of budget, tested on comparable runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pandas as pd

from robust_arch.analysis.claims.allocation import against_equal_shares, against_equal_widening
from robust_arch.analysis.claims.capacity import capacity
from robust_arch.analysis.claims.last_stage import last_stage_alone, last_stage_refilled
from robust_arch.analysis.claims.measured import RESOURCES, Measured, measured
from robust_arch.analysis.claims.question import Finding
from robust_arch.analysis.claims.sites import Sites
from robust_arch.analysis.groups import Group, groups
from robust_arch.runs import SITE_COLUMNS


@dataclass(frozen=True)
class Examined:
    """The findings on comparable runs of one kind of architecture.

    Attributes:
        group: the comparable rows.
        kind: family, stem width and other settings, in words.
        sigma: standard deviation in points of a run about its architecture's mean; None where no architecture was
            trained twice.
        degrees: of freedom of `sigma`.
        noisy: architectures whose runs scatter far more than those of the others, with their standard deviations in
            points. They are part of every comparison.
        unequal: whether the scatter differs between architectures by more than chance.
        sites: of the runs, and whether they matter; None for one site.
        findings: one per claim and setting.
    """

    group: Group
    kind: str
    sigma: float | None
    degrees: int
    noisy: Mapping[str, float]
    unequal: bool
    sites: Sites | None
    findings: tuple[Finding, ...]


def examine_all(frame: pd.DataFrame) -> list[Examined]:
    """Every group of comparable rows with at least two architectures, the largest first, and of equals `best`.

    The same runs have all findings once: at `best` and with averaged weights, where there are such rows. For the other
    checkpoint, and for raw weights beside averaged ones, C1 alone is tested: capacity may help in one case and not in
    the other.

    Args:
        frame: rows of results.csv, of one study or of several; a run that is in several counts once.

    Raises:
        InputError: for an architecture of no known family.
    """
    return [
        each for group, capacity_alone in _comparisons(frame) for each in examine(group, capacity_alone=capacity_alone)
    ]


def examine_checkpoints(frame: pd.DataFrame, main: Group) -> list[Examined]:
    """What `examine_all` finds in a group and in those that differ from it in the checkpoint alone, `main` first."""
    found = [each for each in _comparisons(frame) if each[0].is_like(main) and each[0].weights == main.weights]
    found.sort(key=lambda each: each[0].checkpoint != main.checkpoint)
    return [each for group, capacity_alone in found for each in examine(group, capacity_alone=capacity_alone)]


def _comparisons(frame: pd.DataFrame) -> list[tuple[Group, bool]]:
    """The groups to compare, the largest first, and whether C1 alone is tested in each."""
    found = [group for group in _with_accuracies(frame) if _is_comparison(group)]
    return [(group, any(_comes_before(other, group) for other in found)) for group in found]


def uncompared(frame: pd.DataFrame) -> list[Group]:
    """The groups of comparable rows with one architecture only, the largest first: nothing in them is compared."""
    return [group for group in _with_accuracies(frame) if not _is_comparison(group)]


def _with_accuracies(frame: pd.DataFrame) -> list[Group]:
    rows = once(frame)
    done = rows[rows["status"].isin(("completed", "running")) & rows["worst_case_acc"].between(0, 100)]
    return sorted(groups(done), key=lambda group: (-len(group.rows), *group.rank))


def _comes_before(other: Group, group: Group) -> bool:
    """Whether `other` has the runs of `group` at `best`, or with averaged weights, instead."""
    whole = other.weights == group.weights or len(other.rows) >= len(group.rows)
    return whole and other.rank < group.rank and other.is_like(group)


def once(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of one study or of several, without duplicates of runs that are in several."""
    compared = frame.columns.difference(["study", *SITE_COLUMNS])  # earlier versions did not record the site
    return frame[~frame.duplicated(list(compared))].assign(study="")


def _is_comparison(group: Group) -> bool:
    return len(group.rows.drop_duplicates(["arch", "family", "depths", "widths"])) > 1


def examine(group: Group, *, capacity_alone: bool = False) -> list[Examined]:
    """The claims, tested on each kind of architecture with at least two in a group, the most frequent kind first.

    Architectures of different kinds are not compared with one another. Verdicts are about the test images of the group:
    the intervals do not include the variation over other test images.

    Args:
        group: comparable rows.
        capacity_alone: whether C1 alone is tested.

    Raises:
        InputError: for an architecture of no known family.
    """
    return [
        _examined(group, kind, found, capacity_alone=capacity_alone)
        for kind, found in measured(group.rows).items()
        if len(found.names) > 1
    ]


def _examined(group: Group, kind: str, found: Measured, *, capacity_alone: bool) -> Examined:
    model, findings = found.model, tuple(_findings(found, capacity_alone=capacity_alone))
    return Examined(group, kind, model.sigma, model.degrees, found.noisy, found.unequal, found.sites, findings)


def _findings(found: Measured, *, capacity_alone: bool) -> Iterator[Finding]:
    for resource in RESOURCES:
        yield from capacity(found, resource)
    if capacity_alone or not found.specs:  # C2 and C3 are about stages
        return
    yield from last_stage_alone(found)
    for resource in RESOURCES:
        yield from last_stage_refilled(found, resource)
    for against in (against_equal_shares, against_equal_widening):
        for resource in RESOURCES:
            yield against(found, resource)
