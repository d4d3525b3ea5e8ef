"""From a study's folder to its report."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robust_arch.analysis.figures import png, robust_against_last_share
from robust_arch.analysis.groups import Group, main_group
from robust_arch.analysis.report import StudyDetails, write_report
from robust_arch.architectures import Cost
from robust_arch.files import read_arrays
from robust_arch.runs import RunFolder, StudyFolder, load_study

Record = Mapping[str, Any]


def write_study_report(path: Path) -> Path:
    """Write `path`/report/index.html from the records and return where it is.

    results.csv is rebuilt with it, and the picture of robust accuracy against the last stage's share stands beside it.

    Raises:
        InputError: if `path` is no study's folder.
    """
    frame = load_study(path)
    study = StudyFolder(path)
    study.write_results(frame)
    group = main_group(frame)
    details = _details(study, group)
    written = write_report(frame, details, study.report_path)
    if group is not None:
        figure = robust_against_last_share(group.rows, details.stage_shares)
        (written.parent / "last_stage_share.png").write_bytes(png(figure))
    return written


def _details(study: StudyFolder, main: Group | None) -> StudyDetails:
    runs = list(study.runs())
    records = [(run, record) for run in runs for record in run.evaluation_records()]
    results = {run.run_id: run.result for run in runs if run.result is not None}
    newest = max(results.values(), key=lambda result: result["finished"], default={})
    return StudyDetails(
        name=study.name,
        command=study.about.get("command") or newest.get("command", ""),
        stage_shares={run_id: Cost(**result["cost"]).shares() for run_id, result in results.items()},
        budget="; ".join(study.about.get("budgets", [])),
        planned=len(study.read_plan()),
        versions=_versions(newest),
        hardware=_hardware(newest.get("hardware", {})),
        best_val={run_id: result["best_val_robust_acc"] for run_id, result in results.items()},
        errors={run.run_id: run.last_error for run in runs if run.state in ("failed", "diverged")},
        flags=_flags(results, records),
        n_val=newest.get("selection_images"),
        outcomes=_outcomes(records, main),
        diagnoses=_parts(records, "diagnostics"),
        smoothness=_parts(records, "smoothness"),
        invalid={_name(run, record): "; ".join(why) for run, record in records if (why := record.get("invalid"))},
    )


def _name(run: RunFolder, record: Record) -> str:
    """A network and its evaluation in words."""
    facts = run.status["run"]
    return (
        f"{facts['arch']}, seed {facts['seed']}, run {run.run_id}, checkpoint {record['checkpoint']}, "
        f"{record['threat']}, {record['n_test']} test images"
    )


def _parts(records: Sequence[tuple[RunFolder, Record]], part: str) -> dict[str, Record]:
    return {_name(run, record): record[part] for run, record in records if part in record}


def _flags(results: Mapping[str, Record], records: Sequence[tuple[RunFolder, Record]]) -> dict[str, str]:
    """What training and evaluations warn of, by run."""
    found: dict[str, list[str]] = {run_id: list(result.get("flags", [])) for run_id, result in results.items()}
    for run, record in records:
        where = f"checkpoint {record['checkpoint']}, {record['n_test']} test images"
        found.setdefault(run.run_id, []).extend(f"{where}: {told}" for told in record.get("warnings", []))
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
            continue  # other images under the same name, which cannot be paired
        arrays = read_arrays(run.evaluations / f"{record['eval_id']}.npz")
        if arrays is not None and set(main.attacks) <= set(arrays):
            outcomes[run.run_id] = np.logical_and.reduce([arrays[name] for name in main.attacks])
    return outcomes


def _versions(result: dict[str, Any]) -> dict[str, str]:
    if not result:
        return {}
    commit = {"commit": result["commit"]} if result["commit"] else {}
    return {"robust_arch": result["package_version"], **commit, **result["versions"]}


def _hardware(hardware: dict[str, Any]) -> str:
    if not hardware:
        return ""
    gpus = ", ".join(hardware["gpus"]) or "no GPU"
    return f"{hardware['processor']}, {hardware['cores']} cores ({hardware['threads']} threads used), {gpus}"
