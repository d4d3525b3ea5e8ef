"""The wandb page of a study, as a file or published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robust_arch.analysis.groups import Group, main_group
from robust_arch.analysis.reading import spec_of
from robust_arch.common.files import write_json
from robust_arch.errors import InputError, invalid
from robust_arch.runs import RunFolder, open_study, to_frame
from robust_arch.tracking.columns import QUESTION, logged_rows, summary_column

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

_SMOOTHNESS = ("stability", "lipschitz")
_TRAINING = ("robust_overfitting", "best_epoch", "train_seconds")
_MISREAD = "=<>'"  # in the text of a filter, by wandb_workspaces 0.4


def build_dashboard(path: Path, *, project: str | None = None, entity: str | None = None) -> Workspace:
    """The wandb workspace of the study in `path`; needs no account and no network.

    Args:
        path: the study's folder.
        project: on wandb; by default the one that the study's runs were logged to.
        entity: user or team on wandb; by default the account's own, which is known once the page is published.

    Raises:
        InputError: if `path` is no study, if it has no results yet, or if the extra `dashboard` is missing.
    """
    try:
        from robust_arch.tracking import panels
    except ImportError:
        raise InputError(
            "a dashboard needs the package wandb-workspaces: install the extra `dashboard`, like "
            "pip install 'robust-arch[dashboard]'"
        ) from None
    study = open_study(path)
    group = main_group(to_frame([row for run in study.runs() for row in logged_rows(run.read())]))
    runs = [] if group is None else [study.run(str(run_id)) for run_id in group.rows["run_id"]]
    sizes = [result.data.test for run in runs if (result := run.result) and result.data]
    study.tell_left_out()
    if group is None or not sizes:
        raise invalid("study", str(path), "a study with at least one trained and attacked run")
    shown = panels.Shown(**_shown(group, sizes[0]))
    return panels.workspace(shown, entity or "", project or logged_project(path, runs))


def _shown(group: Group, whole: int) -> dict[str, Any]:
    """The group as the fields of `panels.Shown`; `whole` is the size of the test set."""
    rows = group.rows.to_dict("records")
    question = {name: rows[0][name] for name in ("study", *QUESTION)}  # as it was logged: the folder may have moved
    question["epochs"] = int(question["epochs"])
    _require_readable(question)
    measured = [name for name in _SMOOTHNESS if group.rows[name].notna().all()]
    numbers = ["clean_acc", "worst_case_acc", *(f"{attack}_acc" for attack in group.attacks), *measured]
    clean, worst, *further = (
        summary_column(group.checkpoint, group.weights, group.n_test, whole, number) for number in numbers
    )
    return {
        "name": question["study"],
        "runs": {column: question[name] for name, column in QUESTION.items()},
        "clean": clean,
        "worst": worst,
        "numbers": (*further, *_TRAINING),
        "stages": min(len(spec_of(row).depths) if isinstance(row["depths"], str) else 0 for row in rows),
    }


def _require_readable(names: Mapping[str, Any]) -> None:
    for key, value in names.items():
        if set(str(value)) & set(_MISREAD):
            raise invalid(
                key, value, f"a name without {' '.join(_MISREAD)}, which filters of the dashboard cannot express"
            )


def logged_project(path: Path, runs: Sequence[RunFolder]) -> str:
    """The wandb project that the study's runs were logged to; raises InputError if they were not."""
    loggers = [run.recorded_group("logger") for run in runs]
    projects = [str(logger["project"]) for logger in loggers if logger.get("project")]
    if not projects:
        raise invalid("study", str(path), "a study whose runs were logged to wandb; these were not (logger=csv)")
    return projects[-1]


def write_definition(page: Workspace, path: Path) -> None:
    """Write the page's definition as JSON; the same study gives the same file."""
    # the package offers no public way to the definition that its `save` sends
    content = page._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)
    write_json(path, {key: _without_ids(content[key]) for key in ("entity", "project", "displayName", "spec")})


def _without_ids(content: Any) -> Any:
    """Plain data without the random ids of panels."""
    if isinstance(content, dict):
        return {key: _without_ids(value) for key, value in content.items() if key != "__id__"}
    return [_without_ids(each) for each in content] if isinstance(content, list) else content


def publish(page: Workspace) -> str:
    """Save the page as a new view of its wandb project and return its address.

    Raises:
        InputError: without an account, a network or the project.
    """
    import wandb

    try:
        if not page.entity:
            page.entity = wandb.Api().default_entity or ""
        return str(page.save().url)
    except Exception as error:  # the errors of wandb and its transport have no common base class
        raise InputError(
            f"--publish: wandb did not accept the dashboard ({type(error).__name__}: {error}); it needs a network, an "
            f"account (`wandb login`) and the project {page.project}, which `wandb sync` of a run creates"
        ) from None
