"""From a study's folder to its report."""

from pathlib import Path
from typing import Any

from robust_arch.analysis.figures import png, robust_against_last_share
from robust_arch.analysis.groups import main_group
from robust_arch.analysis.report import StudyDetails, write_report
from robust_arch.architectures import Cost
from robust_arch.runs import StudyFolder, load_study


def write_study_report(path: Path) -> Path:
    """Write `path`/report/index.html from the records and return where it is.

    results.csv is rebuilt with it, and the picture of robust accuracy against the last stage's share stands beside it.

    Raises:
        InputError: if `path` is no study's folder.
    """
    frame = load_study(path)
    study = StudyFolder(path)
    study.write_results(frame)
    details = _details(study)
    written = write_report(frame, details, study.report_path)
    if (group := main_group(frame)) is not None:
        figure = robust_against_last_share(group.rows, details.stage_shares)
        (written.parent / "last_stage_share.png").write_bytes(png(figure))
    return written


def _details(study: StudyFolder) -> StudyDetails:
    runs = list(study.runs())
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
        flags={run_id: "; ".join(flags) for run_id, result in results.items() if (flags := result.get("flags"))},
        n_val=newest.get("selection_images"),
    )


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
