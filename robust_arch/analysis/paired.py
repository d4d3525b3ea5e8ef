"""Two networks on the same test images: who is right where the other is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robust_arch.analysis.groups import Group
from robust_arch.analysis.markup import Markup, element, folded, joined, simple_table
from robust_arch.errors import InputError, invalid
from robust_arch.files import read_arrays, read_json
from robust_arch.runs.schema import MisfitError, evaluation, is_whole_pair
from robust_arch.statistics import PairedComparison, compare_paired

_LEVEL = 0.05
_OPEN_ROWS, _MOST_ROWS = 30, 300  # of the table: as it is, and folded


@dataclass(frozen=True)
class Pair:
    """A run against the reference; `adjusted` is its p-value after Holm's correction for all pairs together."""

    run_id: str
    comparison: PairedComparison
    adjusted: float


def against(reference: str, outcomes: Mapping[str, np.ndarray]) -> list[Pair]:
    """Every other run against `reference`, by McNemar's exact test with Holm's correction (Holm 1979).

    outcomes: run_id to (n,) booleans, robust or not, on the same images in the same order.
    """
    others = [run for run in outcomes if run != reference]
    comparisons = {run: compare_paired(outcomes[reference], outcomes[run]) for run in others}
    ordered = sorted(others, key=lambda run: comparisons[run].p_value)
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, run in enumerate(ordered):
        largest = max(largest, min(1.0, (len(ordered) - rank) * comparisons[run].p_value))
        adjusted[run] = largest
    return [Pair(run, comparisons[run], adjusted[run]) for run in others]


def compare_records(first: Path, second: Path) -> dict[str, PairedComparison]:
    """Clean and every attack that both evaluation records (.json, with .npz beside them) hold, and their worst case.

    Raises:
        InputError: for files that are no valid records, or records of other images or another threat.
    """
    records, arrays = zip(_read_record(first), _read_record(second), strict=True)
    for key in ("examples_fingerprint", "threat"):
        if records[0][key] != records[1][key]:
            raise invalid(str(second), records[1][key], f"a record whose {key} is {records[0][key]}, as in {first}")
    common = [name for name in ("clean", *records[0]["attacks"]) if name in ("clean", *records[1]["attacks"])]
    found = {name: compare_paired(arrays[0][name], arrays[1][name]) for name in common}
    if len(common) > 2:
        worst = [np.logical_and.reduce([each[name] for name in common]) for each in arrays]
        found["worst case of these"] = compare_paired(*worst)
    return found


def _read_record(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    content, arrays = read_json(path), read_arrays(path.with_suffix(".npz"))
    if content is None or arrays is None or "examples_fingerprint" not in content:
        raise invalid("record", str(path), "results/<study>/runs/<run_id>/evaluations/<eval_id>.json, its .npz beside")
    try:
        evaluation(content)
    except MisfitError as misfit:
        raise InputError(f"record = {str(path)!r}: {misfit}") from None
    if not is_whole_pair(content, arrays):
        raise invalid("record", str(path), "an evaluation whose .npz has one boolean per test image and attack")
    if content.get("invalid"):
        raise invalid("record", str(path), f"a valid evaluation; this one is not: {'; '.join(content['invalid'])}")
    return content, arrays


def section(main: Group | None, outcomes: Mapping[str, np.ndarray], selected: str | None) -> Markup:
    """The report's section: each network of the main group against the selected one, on the same images."""
    heading = element("h2", "Paired comparison")
    if main is None or selected is None or selected not in outcomes or len(outcomes) < 2:
        return joined(heading, element("p", "Needs at least two runs with recorded outcomes, one of them selected."))
    rows = {str(row["run_id"]): row for row in main.rows.to_dict("records")}
    pairs = against(selected, outcomes)
    told_apart = sum(pair.adjusted < _LEVEL for pair in pairs)
    lead = (
        f"Each network against {rows[selected]['arch']} (seed {rows[selected]['seed']}), which held-out images "
        f"selected, on the same {main.n_test} test images: the worst case over {', '.join(main.attacks)}. Of "
        f"{len(pairs)} networks {told_apart} are told apart from it at the 5% level, Holm's correction included. The "
        "test speaks of these trained networks; another training seed would give others."
    )
    head = (
        "architecture",
        "seed",
        "difference in points",
        "95% interval",
        "only this",
        "only the other",
        "p",
        "p (Holm)",
    )
    body = [_row(rows[pair.run_id], pair) for pair in pairs if pair.run_id in rows]
    return joined(heading, element("p", lead), *_tables(head, body))


def _tables(head: Sequence[str], body: list[list[str]]) -> list[Markup]:
    """All rows open if they are few; folded if they are more, at most the ones that stand out most."""
    if len(body) <= _OPEN_ROWS:
        return [simple_table("Paired comparison", head, body)]
    # the smallest p comes first; sorted keeps the order of the table among equals
    kept = sorted(body, key=lambda cells: float(cells[-2]))[:_MOST_ROWS]
    summary = f"The {len(kept):,} of {len(body):,} networks with the smallest p"
    return [folded(summary, simple_table("Paired comparison", head, kept))]


def _row(row: Mapping[object, object], pair: Pair) -> list[str]:
    found = pair.comparison
    # the selected network comes first in the comparison; a reader looks for the row's own gain
    return [
        str(row["arch"]),
        str(row["seed"]),
        f"{-100 * found.difference:+.1f}",
        f"{-100 * found.high:+.1f} to {-100 * found.low:+.1f}",
        str(found.only_second),
        str(found.only_first),
        f"{found.p_value:.3g}",
        f"{pair.adjusted:.3g}",
    ]
