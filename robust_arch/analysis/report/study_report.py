"""The report of a study's folder."""

import contextlib
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from robust_arch.analysis.formatting import counted, number, operations
from robust_arch.analysis.groups import Group, accuracy_columns, evaluations, main_group
from robust_arch.analysis.published import provenance_of
from robust_arch.analysis.reading import read_results, stage_shares
from robust_arch.analysis.report.details import StudyDetails
from robust_arch.analysis.report.figures import png, robust_against_last_share
from robust_arch.analysis.report.page import write_report
from robust_arch.architectures import Cost
from robust_arch.common.files import read_arrays
from robust_arch.errors import InputError, invalid
from robust_arch.runs import RunFolder, StudyFolder, open_study, to_frame
from robust_arch.runs.folder import last_line
from robust_arch.runs.schema import is_whole_pair
from robust_arch.runs.study import recorded_rows

Record = Mapping[str, Any]
_LOST = ("failed", "diverged")


@dataclass(frozen=True)
class _Recorded:
    """One run, with each of its files read once."""

    run: RunFolder
    status: Record
    state: str
    result: Record | None
    evaluations: Sequence[Record]

    @classmethod
    def read(cls, run: RunFolder) -> "_Recorded":
        status = run.status
        return cls(run, status, run.state_in(status), run.result, list(run.evaluation_records()))

    @property
    def rows(self) -> list[dict[str, Any]]:
        return recorded_rows(self.status, self.state, self.result, self.evaluations)


def write_study_report(path: Path) -> Path:
    """Write `path`/report/index.html from the records and return its path.

    This also rebuilds results.csv, unless there are no records, and writes the figure of robust accuracy against the
    last stage's share beside the report.

    Args:
        path: a study's folder, or its results.csv; the records may be missing.

    Raises:
        InputError: for another path.
    """
    study = StudyFolder(path.parent if path.is_file() else path)
    if path.is_file() and path.name != study.results_path.name:
        raise invalid("study", str(path), f"a study's folder, or its {study.results_path.name}")
    if study.is_only_a_table:
        frame = read_results(study.results_path)
        details = _details_of_table(study, frame)
    else:
        study = open_study(study.path)
        runs = [_Recorded.read(run) for run in study.runs()]
        frame = to_frame([row for run in runs for row in run.rows])
        study.write_results(frame)
        details = _details(study, runs, main_group(frame))
    group = main_group(frame)
    study.tell_left_out()
    written = write_report(frame, details, study.report_path)
    if group is not None and set(group.rows["run_id"]) & set(details.stage_shares):
        figure = robust_against_last_share(group.rows, details.stage_shares)
        (written.parent / "last_stage_share.png").write_bytes(png(figure))
    return written


def _details_of_table(study: StudyFolder, frame: pd.DataFrame) -> StudyDetails:
    """The details of a study without records."""
    shares, provenance = {}, provenance_of(study.path)
    for row in frame.drop_duplicates("run_id").to_dict("records"):
        with contextlib.suppress(InputError):  # an architecture of an unknown family
            shares[str(row["run_id"])] = stage_shares(row)
    return StudyDetails(
        name=study.name,
        command=provenance.command if provenance else study.about.get("command", ""),
        stage_shares=shares,
        budget="; ".join(study.about.get("budgets", [])),
        planned=len(study.read_plan()),
        versions={},
        hardware="",
        facts={str(run): list(_facts_of_rows(rows)) for run, rows in frame.groupby("run_id", sort=False)},
        provenance=list(provenance.sentences()) if provenance else (),
    )


def _facts_of_rows(rows: pd.DataFrame) -> Iterator[tuple[str, str]]:
    first = rows.iloc[0].to_dict()
    yield "state", str(first["status"])
    yield from _network(first)
    for row in evaluations(rows).to_dict("records"):
        accuracies = (f"{name.removesuffix('_acc')} {number(row[name], 2)}" for name in accuracy_columns(rows))
        what = f"{row['checkpoint']}, {row['threat']}, {number(row['n_test'], 0)} images"
        yield what, f"in percent: {', '.join(accuracies)}"
    yield "records", "not available; these facts are from results.csv"


def _details(study: StudyFolder, runs: Sequence[_Recorded], main: Group | None) -> StudyDetails:
    records = [(run, record) for run in runs if run.status.get("run") for record in run.evaluations]
    results = {run.run.run_id: run.result for run in runs if run.result is not None}
    newest = max(results.values(), key=lambda result: result["finished"], default={})
    return StudyDetails(
        name=study.name,
        command=study.about.get("command") or newest.get("command", ""),
        stage_shares=dict(_stage_shares(results)),
        budget="; ".join(study.about.get("budgets", [])),
        planned=len(study.read_plan()),
        versions=_versions(newest),
        hardware=_hardware(newest.get("hardware", {})),
        best_val={run_id: result["best_val_robust_acc"] for run_id, result in results.items()},
        errors={run.run.run_id: last_line(run.status.get("error")) for run in runs if run.state in _LOST},
        left_out=dict(study.left_out),
        flags=_flags(results, records),
        n_val=newest.get("selection_images"),
        outcomes=_outcomes([(run.run, record) for run, record in records], main),
        diagnoses=_parts(records, "diagnostics"),
        smoothness=_parts(records, "smoothness"),
        invalid={_name(run, record): "; ".join(why) for run, record in records if (why := record.get("invalid"))},
        commands={run_id: result["command"] for run_id, result in results.items() if result.get("command")},
        facts={run.run.run_id: list(_facts(run)) for run in runs if run.status},
        cards={run.run.run_id: card for run in runs if (card := _card(run.run))},
    )


def _stage_shares(results: Mapping[str, Record]) -> Iterator[tuple[str, tuple[float, ...]]]:
    for run_id, result in results.items():
        if cost := result.get("cost"):
            yield run_id, Cost(**{part.name: cost[part.name] for part in fields(Cost)}).shares()


def _card(run: RunFolder) -> str:
    try:
        return (run.evaluations / "card.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _facts(run: _Recorded) -> Iterator[tuple[str, str]]:
    """What is not in the run's card, or would be in it if there were one."""
    facts, error = run.status["run"], last_line(run.status.get("error"))
    yield "state", f"{run.state}, attempt {run.status.get('attempts', 'unrecorded')}"
    yield from _network(facts)
    yield from _training(run.result)
    if error:
        yield "error", error
    yield "records", f"runs/{run.run.run_id}"


def _network(facts: Mapping[Hashable, Any]) -> Iterator[tuple[str, str]]:
    yield "network", f"{facts['family']}, depths {facts['depths']}, widths {facts['widths']}"
    params, macs = number(facts["params"], 0), operations(facts["macs"])
    yield "cost", f"{params} parameters, {macs} multiply-accumulates per image"


def _training(result: Record | None) -> Iterator[tuple[str, str]]:
    if result is None:
        return
    for which in ("best", "last"):
        # records of other versions may lack some
        names = (f"{which}_epoch", "epochs", f"{which}_val_robust_acc", "selection_images")
        if result.keys() >= set(names):
            epoch, epochs, accuracy, images = (result[name] for name in names)
            yield f"{which} epoch", f"{epoch + 1} of {epochs}: {accuracy:.1f}% robust on {images:,} held-out images"
    if flags := result.get("flags"):
        yield "flags", "; ".join(flags)


def _name(run: _Recorded, record: Record) -> str:
    """The name of a network and its evaluation."""
    facts = run.status["run"]
    return (
        f"{facts['arch']}, seed {facts['seed']}, run {run.run.run_id}, checkpoint {record['checkpoint']}, "
        f"{record['threat']}, {counted(record['n_test'], 'test image')}"
    )


def _parts(records: Sequence[tuple[_Recorded, Record]], part: str) -> dict[str, Record]:
    return {_name(run, record): record[part] for run, record in records if part in record}


def _flags(results: Mapping[str, Record], records: Sequence[tuple[_Recorded, Record]]) -> dict[str, str]:
    """Warnings of training and evaluations, by run."""
    found: dict[str, list[str]] = {run_id: list(result.get("flags", [])) for run_id, result in results.items()}
    for run, record in records:
        where = f"checkpoint {record['checkpoint']}, {counted(record['n_test'], 'test image')}"
        found.setdefault(run.run.run_id, []).extend(f"{where}: {told}" for told in record.get("warnings", []))
    return {run_id: "; ".join(told) for run_id, told in found.items() if told}


def _outcomes(records: Sequence[tuple[RunFolder, Record]], main: Group | None) -> dict[str, np.ndarray]:
    """Run to (n,) booleans, robust under every attack, for the runs of the main group."""
    if main is None:
        return {}
    members = {str(run_id) for run_id in main.rows["run_id"]}
    held = [(run, record) for run, record in records if run.run_id in members and main.holds(record)]
    images = Counter(record.get("examples_fingerprint") for _, record in held)
    outcomes = {}
    for run, record in held:
        if record.get("examples_fingerprint") != images.most_common(1)[0][0]:
            continue  # different images under the same name, which cannot be paired
        arrays = read_arrays(run.evaluations / f"{record.get('eval_id')}.npz")
        if arrays is not None and is_whole_pair(record, arrays):
            outcomes[run.run_id] = np.logical_and.reduce([arrays[name] for name in main.attacks])
    return outcomes


def _versions(result: Record) -> dict[str, str]:
    own = {"robust_arch": result.get("package_version"), "commit": result.get("commit")}
    return {package: version for package, version in {**own, **result.get("versions", {})}.items() if version}


def _hardware(hardware: Record) -> str:
    if not hardware:
        return ""
    cores, threads = (hardware.get(what) for what in ("cores", "threads"))
    parts = [
        hardware.get("processor", "unrecorded processor"),
        "unrecorded cores" if cores is None else counted(cores, "core"),
        "unrecorded threads" if threads is None else f"{counted(threads, 'thread')} used",
        ", ".join(hardware.get("gpus", [])) or "no GPU",
    ]
    return ", ".join(parts)
