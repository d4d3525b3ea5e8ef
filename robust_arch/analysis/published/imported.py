"""A published table as a study's folder: results.csv, or plan.csv of a table without accuracies, and its provenance."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from collections.abc import Mapping as Map
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from robust_arch.analysis.groups import groups
from robust_arch.analysis.published.mapping import Mapping, read_mapping
from robust_arch.analysis.published.provenance import Provenance
from robust_arch.analysis.published.table import counts, read_rows, repeated
from robust_arch.analysis.reading import read_results
from robust_arch.analysis.robust_means import robust_means
from robust_arch.errors import InputError, invalid
from robust_arch.runs import StudyFolder, to_frame
from robust_arch.runs.fields import Identifier, MisfitError, checked
from robust_arch.runs.study import PLAN_COLUMNS

_OWN = {"results.csv", "plan.csv", "study.json", "provenance.json", "report", "figures", "effects", "scaling"}


@dataclass(frozen=True)
class Imported:
    """What an import wrote.

    Attributes:
        path: of results.csv or plan.csv.
        provenance: of the numbers.
        rows: of results.csv or plan.csv.
        architectures: number of them.
        left_out: why rows are not in the study, in words.
        filtered: rows that the mapping's `where` leaves out.
        costs: how the table's costs compare with the closed form, in words.
        warnings: what a reader should look at.
    """

    path: Path
    provenance: Provenance
    rows: int
    architectures: int
    left_out: Sequence[str]
    filtered: int
    costs: Sequence[str]
    warnings: Sequence[str]


def import_results(file: Path, columns: str, study: Path, *, force: bool = False) -> Imported:
    """Write a published table as a study.

    Args:
        file: a CSV file.
        columns: a mapping of this project by name, or a YAML file.
        study: the folder of the study, which must not exist.
        force: replace a study that was imported before.

    Raises:
        InputError: for a file or mapping that does not fit, a table of which no row is left, or a study that exists.
    """
    try:
        checked(Identifier, study.name, "--name")
    except MisfitError as misfit:
        raise InputError(str(misfit)) from None
    if not file.is_file():
        raise invalid("FILE", str(file), "a CSV file")
    mapping = read_mapping(columns)
    _require_free(study, force=force)
    found = read_rows(file, mapping)
    again = repeated(found.rows)
    found.left_out |= again
    rows = [row for row in found.rows if row["line"] not in again]
    if not rows:
        why = f": {counts(found.left_out)[0]}" if found.left_out else ""
        raise invalid("FILE", str(file), f"at least one row that fits the mapping {mapping.name}{why}")
    command = f"robust-arch import-results {quote(str(file))} --columns {quote(columns)} --name {study.name}"
    provenance = Provenance(
        source=mapping.source,
        licence=mapping.licence,
        best=mapping.best,
        selected_on=mapping.selected_on,
        note=mapping.note,
        file=file.name,
        sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        mapping=mapping.name,
        command=command,
        rows=len({row["line"] for row in rows}),
        left_out=len(found.left_out),
        train_images=mapping.train_images,
    )
    path = _write(StudyFolder(study), rows, mapping, provenance)
    return Imported(
        path=path,
        provenance=provenance,
        rows=len(rows),
        architectures=len({row["arch"] for row in rows}),
        left_out=counts(found.left_out),
        filtered=found.filtered,
        costs=list(_costs(found.ratios)),
        warnings=[*_warnings(rows), *(_wild(path) if mapping.evaluations else ())],
    )


def _require_free(study: Path, *, force: bool) -> None:
    if not study.exists():
        return
    names = {path.name for path in study.iterdir()} if study.is_dir() else set()
    if "provenance.json" not in names or not names <= _OWN:
        raise invalid("--name", study.name, f"a new study; {study} is there and was not imported")
    if not force:
        raise invalid("--name", study.name, f"a new study, or --force to replace {study}")


def _write(study: StudyFolder, rows: Sequence[Map[str, Any]], mapping: Mapping, provenance: Provenance) -> Path:
    named = []
    for row in rows:
        columns = {key: value for key, value in row.items() if key not in ("line", "run")}
        run_id = f"{study.name}-{row.get('run', row['line'])}"
        named.append({**columns, "study": study.name, "run_id": run_id, "status": "completed"})
    if not mapping.evaluations and any(not {"params", "macs"} <= row.keys() for row in named):
        raise InputError(f"mapping {mapping.name}: params and macs, which a table without evaluations needs")
    provenance.write(study.path)
    if not mapping.evaluations:
        planned = [{name: {"seed": 0, **row}[name] for name in PLAN_COLUMNS} for row in named]
        study.write_plan(planned, {"command": provenance.command})
        return study.plan_path
    study.results_path.unlink(missing_ok=True)  # a study of results.csv alone is not rebuilt
    return study.write_results(to_frame(named))


def _costs(ratios: Map[str, Sequence[float]]) -> list[str]:
    told = []
    for name, values in ratios.items():
        low, middle, high = np.quantile(values, [0, 0.5, 1])
        agree = max(abs(low - 1), abs(high - 1)) < 1e-3
        times = f"are {middle:.4g} times those of the closed form in the median ({low:.4g} to {high:.4g})"
        told.append(f"{name} of the table {'agree with the closed form within 0.1%' if agree else times}")
    return told


def _warnings(rows: Sequence[Map[str, Any]]) -> Iterator[str]:
    above = sum(row["worst_case_acc"] > row["clean_acc"] for row in rows if "clean_acc" in row)
    if above:
        yield f"{above:,} of {len(rows):,} rows are more accurate under attack than clean: are columns swapped?"


def _wild(path: Path) -> Iterator[str]:
    for group in groups(read_results(path)):
        for wild in robust_means(group.rows, step=100 / group.n_test).wild:
            yield f"far from the other runs of its architecture, but kept: {wild}"
