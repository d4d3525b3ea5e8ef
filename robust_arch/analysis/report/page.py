"""One page per study, or for several: what was asked, what the results are, and how far they can be trusted."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from robust_arch.analysis.groups import Group, main_group
from robust_arch.analysis.report import (
    attacked_images,
    classes,
    comparison,
    computing,
    data,
    gradient_masking,
    results,
    smoothness,
    training_curves,
    wording,
)
from robust_arch.analysis.report.details import StudyDetails, joined
from robust_arch.analysis.report.opening import opening
from robust_arch.analysis.report.templating import render
from robust_arch.analysis.tables import Extras
from robust_arch.common.files import write_text

_SCRIPTS = (
    "data",
    "view",
    "table",
    "card",
    "scale",
    "plot",
    "tip",
    "link",
    "download",
    "page",
)  # one scope; `page` comes last and starts the others
_MOST_OPEN = 20  # entries of a list; a longer one is folded
_ROW = ["run_id", "checkpoint", "weights", "threat", "n_test"]
_NEEDED = {
    "curves": "training curves",
    "classes": "accuracies by class",
    "images": "attacked images (evaluate.save_images=true)",
    "masking": "checks for masked gradients (evaluate.diagnostics=200)",
    "smoothness": "smoothness by stage (evaluate.smoothness=200)",
}


@dataclass(frozen=True)
class ReportedStudy:
    """A study and its rows of results.csv."""

    frame: pd.DataFrame
    details: StudyDetails


def write_report(studies: Sequence[ReportedStudy], path: Path) -> Path:
    """Write the page atomically, create folders, and return `path`."""
    frame, details = rows_of([study.frame for study in studies]), joined([study.details for study in studies])
    main = main_group(frame)
    selected = _selected(main, details.best_val)
    extras = Extras(details.stage_shares, details.best_val, details.best_weights, details.n_val, selected)
    table = data.Table.of(frame, main, extras)
    script = _script()
    openings = list(_openings(studies))
    # one figure of the epochs of all runs is enough
    shown = all(any("training_curves" in figure.name for figure in each["opening"].figures) for each in openings)
    optional = {
        "curves": None if shown else training_curves.section(main, details.epochs, details.best_epochs),
        "classes": classes.section(main, details.classes),
        "images": attacked_images.section(details.images),
        "masking": gradient_masking.section(details.diagnoses),
        "smoothness": smoothness.section(details.smoothness),
    }
    page = render(
        "page.html.jinja",
        title=f"Study {details.name}" if len(studies) == 1 else f"Studies {details.name}",
        style=_asset("page.css"),
        script=script,
        script_hash=f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
        data=data.block(table, main, extras, details, _members(studies)),
        studies=openings,
        several=len(studies) > 1,
        results=results.section(table, extras),
        comparable=len({each.name for each in table.architectures if each.robust}) > 1,
        **optional,
        not_recorded=", ".join(
            what for name, what in _NEEDED.items() if not (optional[name] or (name == "curves" and shown))
        ),
        most_open=_MOST_OPEN,
        failures=_failures(frame, details.errors),
        invalid=[f"{name}: {why}" for name, why in details.invalid.items()],
        warnings=_warnings(frame, details.flags, details.left_out),
        details=details,
        usage=computing.section(details.usage.values()),
        versions=", ".join(f"{package} {version}" for package, version in details.versions.items()),
        definitions=wording.definitions(imported=bool(details.provenance)),
    )
    write_text(path, page.encode("utf-8", "replace").decode("utf-8"))  # an error may hold half a character
    return path


def rows_of(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The rows of all studies on a page, a row that is in several of them once."""
    # the columns of a study without rows have no type, which would take away those of the other studies
    frame = pd.concat([rows for rows in frames if len(rows)] or frames, ignore_index=True)
    if len(frames) > 1:
        frame = frame.drop_duplicates(_ROW)
    # a run's place in the table must not depend on the order in which runs ended
    return frame.sort_values(["params", "arch", "seed"], kind="stable")


def _members(studies: Sequence[ReportedStudy]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for study in studies:  # parts of a study on several machines have the same name
        found.setdefault(study.details.name, set()).update(study.frame["run_id"].astype(str))
    return found


def _openings(studies: Sequence[ReportedStudy]) -> Iterator[Mapping[str, Any]]:
    for place, study in enumerate(studies, start=1):
        # as in the page of that study alone
        frame = rows_of([study.frame])
        details, main = study.details, main_group(frame)
        selected = _selected(main, details.best_val)
        extras = Extras(details.stage_shares, details.best_val, details.best_weights, details.n_val, selected)
        compared = comparison.section(frame, main, details.outcomes, selected)
        yield {
            "anchor": f"study-{place}",
            "details": details,
            "summary": "".join(wording.summary(frame, main, extras, details.budget, details.planned)),
            "comparison": compared,
            "opening": opening(frame, details.epochs, compared.decided, compared.answers, f"study{place}-"),
        }


def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _script() -> str:
    """The page's only script; its policy allows no other one."""
    parts = "\n".join(_asset(f"scripts/{name}.js") for name in _SCRIPTS)
    return f'"use strict";\n(() => {{\n{parts}}})();\n'


def _selected(main: Group | None, best_val: Mapping[str, float]) -> str | None:
    """The run with the highest held-out accuracy; of equals the one with fewest parameters, which is first."""
    candidates = [] if main is None else [str(run) for run in main.rows["run_id"] if run in best_val]
    return max(candidates, key=lambda run: best_val[run], default=None)


def _failures(frame: pd.DataFrame, errors: Mapping[str, str]) -> list[list[str]]:
    lost = frame[frame["status"].isin(("failed", "diverged"))].drop_duplicates("run_id")
    return [
        [
            str(row["run_id"]),
            *(wording.plain(row[name]) for name in ("arch", "seed", "status")),
            errors.get(str(row["run_id"]), "not recorded"),
        ]
        for row in lost.to_dict("records")
    ]


def _warnings(frame: pd.DataFrame, flags: Mapping[str, str], left_out: Mapping[str, str]) -> list[str]:
    names = frame.drop_duplicates("run_id").set_index("run_id")["arch"]
    told = [f"left out: {what}: {why}" for what, why in left_out.items()]
    return told + [f"{names.get(run, 'unknown')}, run {run}: {flag}" for run, flag in flags.items()]
