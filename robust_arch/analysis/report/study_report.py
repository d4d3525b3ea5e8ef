"""The report of a study's folder."""

import contextlib
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from robust_arch.analysis.attacked_images import AttackedImages, read_images
from robust_arch.analysis.epochs import read_epochs
from robust_arch.analysis.formatting import ABSENT, checkpoint_text, counted, number, operations
from robust_arch.analysis.groups import Group, accuracy_columns, evaluations, main_group
from robust_arch.analysis.networks import by_rank, networks
from robust_arch.analysis.published.provenance import provenance_of
from robust_arch.analysis.reading import folder_of, read_results, stage_shares
from robust_arch.analysis.report.attacked_images import NETWORKS, SHOWN
from robust_arch.analysis.report.computing import Usage
from robust_arch.analysis.report.details import StudyDetails
from robust_arch.analysis.report.page import ReportedStudy, rows_of, write_report
from robust_arch.architectures import Cost
from robust_arch.errors import InputError, invalid
from robust_arch.runs import Evaluation, RecordedRun, RunFolder, RunResult, StudyFolder, open_study, to_frame
from robust_arch.runs.records import Hardware, RecordedCost
from robust_arch.runs.study import SITE_COLUMNS, run_rows

_LOST = ("failed", "diverged")
_MOST_CLASSES = 100_000  # more are no labels, but what a damaged file holds


def write_study_report(path: Path) -> Path:
    """Write the report of one study into its folder; arguments and errors are those of `write_joint_report`."""
    return write_joint_report([path], StudyFolder(_folder(path)).report_path.parent)


def write_joint_report(paths: Sequence[Path], into: Path) -> Path:
    """Write `into`/index.html from the records of one study or several, and return its path.

    This also rebuilds each results.csv, unless there are no records.

    Args:
        paths: folders of studies, or their results.csv; the records may be missing.
        into: the folder of the report.

    Raises:
        InputError: for another path.
    """
    read = [_read(path) for path in paths]
    shown = main_group(rows_of([each.frame for each in read]))
    return write_report([ReportedStudy(each.frame, _details_of(each, shown)) for each in read], into / "index.html")


@dataclass(frozen=True)
class _Read:
    """A study as it was read; runs: its records, None where there are none."""

    study: StudyFolder
    frame: pd.DataFrame
    runs: Sequence[RecordedRun] | None


def _folder(path: Path) -> Path:
    if path.is_file() and path.name != "results.csv":
        raise invalid("study", str(path), "a study's folder, or its results.csv")
    return folder_of(path)


def _read(path: Path) -> _Read:
    study = StudyFolder(_folder(path))
    if study.is_only_a_table:
        return _Read(study, read_results(study.results_path), None)
    study = open_study(study.path)
    runs = [run.read() for run in study.runs()]
    frame = to_frame([row for run in runs for row in run_rows(run)])
    study.write_results(frame)
    return _Read(study, frame, runs)


def _details_of(read: _Read, shown: Group | None) -> StudyDetails:
    """What the page tells of a study beside its rows; shown: the page's main group."""
    if read.runs is None:
        details = _details_of_table(read.study, read.frame)
    else:
        details = _details(read.study, read.runs, main_group(read.frame), shown)
    read.study.tell_left_out()
    return details


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
        budget=_budgets(study),
        planned=len(study.read_plan()),
        versions={},
        hardware="",
        facts={str(run): list(_facts_of_rows(rows)) for run, rows in frame.groupby("run_id", sort=False)},
        provenance=list(provenance.sentences()) if provenance else (),
        epochs=_epochs(study.path),
        usage={str(row["run_id"]): _usage_of_row(row) for row in frame.drop_duplicates("run_id").to_dict("records")},
        from_records=False,
    )


def _budgets(study: StudyFolder) -> str:
    return "; ".join(budget for budget in study.about.budgets if budget != "no budget")


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


def _details(study: StudyFolder, runs: Sequence[RecordedRun], main: Group | None, shown: Group | None) -> StudyDetails:
    """The details of a study; main: its own main group, shown: that of the page, which may have several studies."""
    records = [(run, record) for run in runs if run.facts for record in run.evaluations]
    results = {run.run_id: run.result for run in runs if run.result}
    newest = max(results.values(), key=lambda result: result.finished, default=None)
    return StudyDetails(
        name=study.name,
        command=study.about.command or (newest.command if newest else None) or "",
        stage_shares={run_id: shares for run_id, result in results.items() if (shares := _stage_shares(result.cost))},
        budget=_budgets(study),
        planned=len(study.read_plan()),
        versions=_versions(newest) if newest else {},
        hardware=_hardware(newest.hardware) if newest and newest.hardware else "",
        best_val={run_id: result.best_val_robust_acc for run_id, result in results.items()},
        best_weights={run_id: result.selected_weights for run_id, result in results.items()},
        errors={run.run_id: run.error for run in runs if run.state in _LOST},
        left_out=dict(study.left_out),
        flags=_flags(results, records),
        n_val=newest.selection_images if newest else None,
        outcomes=_outcomes(_arrays(records, main), main),
        classes=_classes(_arrays(records, shown), shown),
        images=_images(records, shown),
        epochs=_epochs(study.path),
        best_epochs={run_id: result.best_epoch for run_id, result in results.items()},
        usage={run.run_id: _usage(run, run.result) for run in runs if run.result},
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


def _arrays(
    records: Sequence[tuple[RecordedRun, Evaluation]], main: Group | None
) -> dict[str, Mapping[str, np.ndarray]]:
    """Run to what is recorded per test image, for the runs of the main group that were evaluated on the same images."""
    if main is None:
        return {}
    held = [(run.folder, record) for run, record in _of_group(records, main)]
    images = Counter(record.examples_fingerprint for _, record in held)
    found: dict[str, Mapping[str, np.ndarray]] = {}
    for folder, record in held:
        if record.examples_fingerprint != images.most_common(1)[0][0]:
            continue  # different images under the same name, which cannot be paired
        arrays = folder.outcomes(record.eval_id or "")
        if arrays is not None and record.is_whole_with(arrays):
            found[folder.run_id] = arrays
    return found


def _of_group(
    records: Sequence[tuple[RecordedRun, Evaluation]], main: Group
) -> Iterator[tuple[RecordedRun, Evaluation]]:
    members = {str(run_id) for run_id in main.rows["run_id"]}
    for run, record in records:
        if run.run_id in members and main.holds(record):
            yield run, record


def _outcomes(arrays: Mapping[str, Mapping[str, np.ndarray]], main: Group | None) -> dict[str, np.ndarray]:
    """Run to (n,) booleans, robust under every attack."""
    attacks = main.attacks if main else ()
    return {run: np.logical_and.reduce([found[name] for name in attacks]) for run, found in arrays.items()}


def _classes(arrays: Mapping[str, Mapping[str, np.ndarray]], main: Group | None) -> dict[str, np.ndarray]:
    """Run to (K, 3) counts by class: all, correct without an attack, robust; earlier versions recorded no labels."""
    robust = _outcomes(arrays, main)
    labelled = {run: found for run, found in arrays.items() if _labels_fit(found)}
    size = 1 + max((int(found["label"].max()) for found in labelled.values()), default=0)
    return {
        run: np.stack(
            [
                np.bincount(found["label"][members], minlength=size)
                for members in (np.ones_like(found["clean"]), found["clean"], robust[run])
            ],
            axis=1,
        )
        for run, found in labelled.items()
    }


def _labels_fit(found: Mapping[str, np.ndarray]) -> bool:
    label = found.get("label")
    if label is None or label.shape != found["clean"].shape or not np.issubdtype(label.dtype, np.integer):
        return False
    return 0 <= int(label.min()) <= int(label.max()) < _MOST_CLASSES


def _images(records: Sequence[tuple[RecordedRun, Evaluation]], main: Group | None) -> dict[str, AttackedImages]:
    """The saved images of the most robust architectures that have some, under the attack that most images fail."""
    if main is None:
        return {}
    ranks = {network.arch: place for place, network in enumerate(by_rank(networks(main)))}
    held = sorted(_of_group(records, main), key=lambda each: ranks[each[0].facts.arch] if each[0].facts else len(ranks))
    found: dict[str, AttackedImages] = {}
    drawn: set[str] = set()
    for run, record in held:
        if len(found) == NETWORKS or run.facts is None or run.facts.arch in drawn:
            continue
        for name in sorted(record.attacks, key=lambda name: record.attacks[name].percent):
            if images := read_images(run.folder, record, name, SHOWN):
                found[_name(run, record)] = images
                drawn.add(run.facts.arch)
                break
    return found


def _epochs(study: Path) -> pd.DataFrame | None:
    try:
        return read_epochs(study)
    except InputError:  # not recorded
        return None


def _usage(run: RecordedRun, result: RunResult) -> Usage:
    hardware = result.hardware
    seconds = [attack.seconds for record in run.evaluations for attack in record.attacks.values()]
    return Usage(
        site=(
            hardware.site(result.device) if hardware else "not recorded",
            result.device or ABSENT,
            ABSENT if hardware is None or hardware.threads is None else str(hardware.threads),
            result.precision or ABSENT,
            result.torch_version or ABSENT,
        ),
        train_seconds=result.train_seconds,
        attack_seconds=None if any(each is None for each in seconds) else sum(filter(None, seconds)),
    )


def _usage_of_row(row: Mapping[Hashable, Any]) -> Usage:
    hardware, precision, version = ("" if pd.isna(row.get(name)) else str(row[name]) for name in SITE_COLUMNS)
    seconds = row["train_seconds"]
    site = (hardware or "not recorded", ABSENT, ABSENT, precision or ABSENT, version or ABSENT)
    return Usage(site, None if pd.isna(seconds) else float(seconds), None)


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
