"""A study's report and its figures on wandb, as an artifact of a run of its own."""

import re
from collections.abc import Sequence
from pathlib import Path

from robust_arch.errors import InputError, invalid, require_name
from robust_arch.runs import StudyFolder, open_study
from robust_arch.runs.provenance import provenance
from robust_arch.tracking.dashboard import logged_project


def log_report(path: Path, figures: Sequence[Path], *, mode: str, project: str | None = None) -> Path:
    """Log report/index.html and the figures; returns the folder of the wandb run.

    Args:
        path: a study's folder with its report.
        figures: files; those in PNG are shown on the run's page, too.
        mode: offline, which writes `path`/wandb for `wandb sync`, or online.
        project: on wandb; by default the one that the study's runs were logged to.

    Raises:
        InputError: if there is no report or no project, or if wandb fails.
    """
    study = open_study(path)
    project = project or logged_project(path, list(study.runs()))
    require_name("--project", project)
    report = StudyFolder(path).report_path
    if not report.is_file():
        raise invalid("study", str(path), "a study with a report, which robust-arch report writes")
    files = [report, *figures]
    try:
        return _log(study, files, project, mode)
    except Exception as error:  # the errors of wandb and its transport have no common base class
        raise InputError(f"--wandb: wandb did not take the report ({type(error).__name__}: {error})") from None


def _log(study: StudyFolder, files: list[Path], project: str, mode: str) -> Path:
    import wandb

    run = wandb.init(
        project=project,
        name=f"{study.name} report",
        group=study.name,
        job_type="report",
        config={"study": study.name, "command": study.about.command, "commit": provenance()["commit"]},
        dir=study.path,
        mode="online" if mode == "online" else "offline",
        reinit="finish_previous",
        settings=wandb.Settings(silent=True, console="off", init_timeout=30),
    )
    artifact = wandb.Artifact(re.sub(r"[^\w.-]", "-", f"{study.name}-report"), type="report")
    for file in files:
        artifact.add_file(str(file))
    run.log_artifact(artifact)
    run.log({file.stem: wandb.Image(str(file)) for file in files if file.suffix == ".png"})
    folder = Path(run.dir).parent
    run.finish()
    return folder
