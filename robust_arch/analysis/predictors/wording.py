"""Correlations as text of at most 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from robust_arch.analysis.bounded import Bounded
from robust_arch.analysis.formatting import ABSENT, counted, in_columns
from robust_arch.analysis.groups import Group
from robust_arch.analysis.predictors.correlations import Correlations


def told(group: Group, found: Sequence[Correlations]) -> str:
    """The condition, a line per predictor, and how to read it."""
    return in_columns(_lines(group, found))


def _lines(group: Group, found: Sequence[Correlations]) -> Iterator[str]:
    yield f"{group}."
    yield f"{counted(group.rows['arch'].nunique(), 'architecture')}, {counted(group.rows['run_id'].nunique(), 'run')}."
    yield ""
    yield "Rank correlation with robust accuracy over architectures, 95% interval:"
    yield f"{'':15}{'n':>4}{'Spearman':>20}{'Kendall':>20}{'beyond costs':>20}"
    for each in found:
        yield (
            f"{each.name:15}{each.n:>4}{cell(each.spearman):>20}{cell(each.kendall):>20}{cell(each.beyond_costs):>20}"
        )
    yield ""
    top = [f"{each.name} {cell(each.top)}" for each in found if each.top]
    n = max((each.top_n for each in found), default=0)
    yield f"In the most robust tenth (n = {n}), Kendall: {', '.join(top) or 'too few architectures'}."
    yield (
        "Beyond costs: Spearman's correlation at equal ranks of parameters and MACs. Intervals are percentiles over "
        "resampled architectures; several predictors are tested, so that one in twenty excludes 0 by chance."
    )


def cell(value: Bounded | None) -> str:
    """Like `+0.52 [+0.37, +0.64]`."""
    return ABSENT if value is None else f"{value.value:+.2f} [{value.low:+.2f},{value.high:+.2f}]"
