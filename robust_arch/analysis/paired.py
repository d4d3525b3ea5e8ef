"""Two networks on the same test images: on which images only one of them is right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robust_arch.common.files import read_arrays, read_json
from robust_arch.common.statistics import PairedComparison, compare_paired
from robust_arch.errors import InputError, invalid
from robust_arch.runs import Evaluation
from robust_arch.runs.fields import MisfitError


@dataclass(frozen=True)
class AdjustedComparison:
    """A run compared with the reference; `adjusted` is its p-value after Holm's correction for all runs."""

    run_id: str
    comparison: PairedComparison
    adjusted: float


def against(reference: str, outcomes: Mapping[str, np.ndarray]) -> list[AdjustedComparison]:
    """Every other run compared with `reference`, by McNemar's exact test with Holm's correction (Holm 1979).

    Args:
        reference: its run_id.
        outcomes: run_id to (n,) booleans, robust or not, on the same images in the same order.
    """
    found = {run: compare_paired(outcomes[reference], other) for run, other in outcomes.items() if run != reference}
    ordered = sorted(found, key=lambda run: found[run].p_value)
    factors = np.arange(len(ordered), 0, -1)
    corrected = np.maximum.accumulate(np.minimum(1.0, factors * [found[run].p_value for run in ordered]))
    adjusted = dict(zip(ordered, corrected.tolist(), strict=True))
    return [AdjustedComparison(run, comparison, adjusted[run]) for run, comparison in found.items()]


def compare_records(first: Path, second: Path) -> dict[str, PairedComparison]:
    """Compare two evaluation records (.json with .npz) on clean images, common attacks and their worst case.

    Raises:
        InputError: for files that are not valid records, or records of different images or threat models.
    """
    pairs = (_read_record(first), _read_record(second))
    records, arrays = [record for record, _ in pairs], [flags for _, flags in pairs]
    for key in ("examples_fingerprint", "threat"):
        one, other = (getattr(record, key) for record in records)
        if one != other:
            raise invalid(str(second), other, f"a record whose {key} is {one}, as in {first}")
    common = ["clean", *(name for name in records[0].attacks if name in records[1].attacks)]
    found = {name: compare_paired(arrays[0][name], arrays[1][name]) for name in common}
    if len(common) > 2:
        worst = [np.logical_and.reduce([each[name] for name in common]) for each in arrays]
        found["worst case of these"] = compare_paired(*worst)
    return found


def _read_record(path: Path) -> tuple[Evaluation, dict[str, np.ndarray]]:
    content, arrays = read_json(path), read_arrays(path.with_suffix(".npz"))
    if content is None or arrays is None or "examples_fingerprint" not in content:
        raise invalid("record", str(path), "results/<study>/runs/<run_id>/evaluations/<eval_id>.json, its .npz beside")
    try:
        record = Evaluation.read(content)
    except MisfitError as misfit:
        raise InputError(f"record = {str(path)!r}: {misfit}") from None
    if not record.is_whole_with(arrays):
        raise invalid("record", str(path), "an evaluation whose .npz has one boolean per test image and attack")
    if record.invalid:
        raise invalid("record", str(path), f"a valid evaluation; this one is not: {'; '.join(record.invalid)}")
    return record, arrays
