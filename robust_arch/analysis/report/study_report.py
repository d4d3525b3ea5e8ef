"""The report of a study's folder."""

import contextlib
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from robust_arch.analysis.formatting import checkpoint_text, counted, number, operations
from robust_arch.analysis.groups import Group, accuracy_columns, evaluations, main_group
from robust_arch.analysis.published.provenance import provenance_of
from robust_arch.analysis.reading import read_results, stage_shares
from robust_arch.analysis.report.details import StudyDetails
from robust_arch.analysis.report.figures import png, robust_against_last_share
from robust_arch.analysis.report.page import write_report
from robust_arch.architectures import Cost
from robust_arch.errors import InputError, invalid
from robust_arch.runs import Evaluation, RecordedRun, RunFolder, RunResult, StudyFolder, open_study, to_frame
from robust_arch.runs.records import Hardware, RecordedCost
from robust_arch.runs.study import run_rows

_LOST = ("failed", "diverged")


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
        runs = [run.read() for run in study.runs()]
        frame = to_frame([row for run in runs for row in run_rows(run)])
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
        command=provenance.command if provenance else study.about.command,
        stage_shares=shares,
        budget="; ".join(study.about.budgets),
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
        checkpoint = checkpoint_text(row["checkpoint"], row["weights"])
        what = f"{checkpoint}, {row['threat']}, {number(row['n_test'], 0)} images"
        yield what, f"in percent: {', '.join(accuracies)}"
    yield "records", "not available; these facts are from results.csv"


def _details(study: StudyFolder, runs: Sequence[RecordedRun], main: Group | None) -> StudyDetails:
    records = [(run, record) for run in runs if run.facts for record in run.evaluations]
    results = {run.run_id: run.result for run in runs if run.result}
    newest = max(results.values(), key=lambda result: result.finished, default=None)
    return StudyDetails(
        name=study.name,
        command=study.about.command or (newest.command if newest else None) or "",
        stage_shares={run_id: shares for run_id, result in results.items() if (shares := _stage_shares(result.cost))},
        budget="; ".join(study.about.budgets),
        planned=len(study.read_plan()),
        versions=_versions(newest) if newest else {},
        hardware=_hardware(newest.hardware) if newest and newest.hardware else "",
        best_val={run_id: result.best_val_robust_acc for run_id, result in results.items()},
        best_weights={run_id: result.selected_weights for run_id, result in results.items()},
        errors={run.run_id: run.error for run in runs if run.state in _LOST},
        left_out=dict(study.left_out),
        flags=_flags(results, records),
        n_val=newest.selection_images if newest else None,
        outcomes=_outcomes(records, main),
        diagnoses={_name(run, record): record.diagnostics for run, record in records if record.diagnostics},
        smoothness={_name(run, record): record.smoothness for run, record in records if record.smoothness},
        invalid={_name(run, record): "; ".join(record.invalid) for run, record in records if record.invalid},
        commands={run_id: result.command for run_id, result in results.items() if result.command},
        facts={run.run_id: list(_facts(run)) for run in runs if run.facts},
        cards={run.run_id: card for run in runs if (card := _card(run.folder))},
    )


def _stage_shares(recorded: RecordedCost | None) -> tuple[float, ...]:
    if recorded is None:
        return ()
    return Cost(recorded.params, recorded.macs, tuple(recorded.stage_params), tuple(recorded.stage_macs)).shares()


def _card(run: RunFolder) -> str:
    try:
        return (run.evaluations / "card.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _facts(run: RecordedRun) -> Iterator[tuple[str, str]]:
    """What is not in the run's card, or would be in it if there were one."""
    if run.status is None:
        return
    yield "state", f"{run.state}, attempt {run.status.attempts or 'unrecorded'}"
    yield from _network(dict(run.status.run))
    if run.result:
        yield from _training(run.result)
    if run.error:
        yield "error", run.error
    yield "records", f"runs/{run.run_id}"


def _network(facts: Mapping[Hashable, object]) -> Iterator[tuple[str, str]]:
    yield "network", f"{facts['family']}, depths {facts['depths']}, widths {facts['widths']}"
    params, macs = number(facts["params"], 0), operations(facts["macs"])
    yield "cost", f"{params} parameters, {macs} multiply-accumulates per image"


def _training(result: RunResult) -> Iterator[tuple[str, str]]:
    weights = "" if result.selected_weights == "raw" else f" with {result.selected_weights} weights"
    epochs = {"best": (result.best_epoch, result.best_val_robust_acc)}
    if result.last_val_robust_acc is not None:
        epochs["last"] = (result.last_epoch, result.last_val_robust_acc)
    for which, (epoch, accuracy) in epochs.items() if result.epochs else ():
        images = f"{result.selection_images:,} held-out images"
        text = f"{epoch + 1} of {result.epochs}: {accuracy:.1f}% robust{weights} on {images}"
        yield f"{which} epoch", text
    if result.flags:
        yield "flags", "; ".join(result.flags)


def _name(run: RecordedRun, record: Evaluation) -> str:
    """The name of a network and its evaluation."""
    network = f"{run.facts.arch}, seed {run.facts.seed}" if run.facts else ""
    checkpoint = checkpoint_text(record.checkpoint, record.weights)
    evaluation = f"checkpoint {checkpoint}, {record.threat}, {counted(record.n_test, 'test image')}"
    return f"{network}, run {run.run_id}, {evaluation}"


def _flags(results: Mapping[str, RunResult], records: Sequence[tuple[RecordedRun, Evaluation]]) -> dict[str, str]:
    """Warnings of training and evaluations, by run."""
    found = {run_id: list(result.flags) for run_id, result in results.items()}
    for run, record in records:
        checkpoint = checkpoint_text(record.checkpoint, record.weights)
        where = f"checkpoint {checkpoint}, {counted(record.n_test, 'test image')}"
        found.setdefault(run.run_id, []).extend(f"{where}: {told}" for told in record.warnings)
    return {run_id: "; ".join(told) for run_id, told in found.items() if told}


def _outcomes(records: Sequence[tuple[RecordedRun, Evaluation]], main: Group | None) -> dict[str, np.ndarray]:
    """Run to (n,) booleans, robust under every attack, for the runs of the main group."""
    if main is None:
        return {}
    members = {str(run_id) for run_id in main.rows["run_id"]}
    held = [(run.folder, record) for run, record in records if run.run_id in members and main.holds(record)]
    images = Counter(record.examples_fingerprint for _, record in held)
    outcomes = {}
    for folder, record in held:
        if record.examples_fingerprint != images.most_common(1)[0][0]:
            continue  # different images under the same name, which cannot be paired
        arrays = folder.outcomes(record.eval_id or "")
        if arrays is not None and record.is_whole_with(arrays):
            outcomes[folder.run_id] = np.logical_and.reduce([arrays[name] for name in main.attacks])
    return outcomes


def _versions(result: RunResult) -> dict[str, str]:
    found = {"robust_arch": result.package_version, "commit": result.commit, **result.versions}
    return {package: version for package, version in found.items() if version}


def _hardware(hardware: Hardware) -> str:
    parts = [
        hardware.processor,
        "unrecorded cores" if hardware.cores is None else counted(hardware.cores, "core"),
        "unrecorded threads" if hardware.threads is None else f"{counted(hardware.threads, 'thread')} used",
        ", ".join(hardware.gpus) or "no GPU",
    ]
    return ", ".join(parts)
