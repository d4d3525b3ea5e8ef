"""One page per study: what was run, what the results are, and how far they can be trusted."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import pandas as pd

from robust_arch.analysis.groups import Group, evaluations, main_group
from robust_arch.analysis.report import (
    comparison,
    data,
    gradient_masking,
    pictures,
    results,
    smoothness,
    wording,
)
from robust_arch.analysis.report.details import StudyDetails
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
    "page",
)  # one scope; `page` comes last and starts the others
_MOST_OPEN = 20  # entries of a list; a longer one is folded


def write_report(frame: pd.DataFrame, details: StudyDetails, path: Path) -> Path:
    """Write the page atomically, create folders, and return `path`. frame: rows of results.csv."""
    # a run's place in the table must not depend on the order in which runs ended
    frame = frame.sort_values(["params", "arch", "seed"], kind="stable")
    main = main_group(frame)
    selected = _selected(main, details.best_val)
    extras = Extras(
        _numbers(frame), details.stage_shares, details.best_val, details.best_weights, details.n_val, selected
    )
    script = _script()
    page = render(
        "page.html.jinja",
        title=f"Study {details.name}",
        style=_asset("page.css"),
        script=script,
        script_hash=f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
        data=data.block(frame, main, extras, details),
        summary="".join(wording.summary(frame, main, extras, details.budget, details.planned)),
        comparison=comparison.section(frame, main, details.outcomes, selected),
        results=results.section(frame, main, extras),
        figures=pictures.section(frame, main, extras),
        masking=gradient_masking.section(details.diagnoses),
        smoothness=smoothness.section(details.smoothness),
        most_open=_MOST_OPEN,
        failures=_failures(frame, details.errors),
        invalid=[f"{name}: {why}" for name, why in details.invalid.items()],
        warnings=_warnings(frame, details.flags, details.left_out),
        details=details,
        versions=", ".join(f"{package} {version}" for package, version in details.versions.items()),
        definitions=wording.DEFINITIONS,
    )
    write_text(path, page.encode("utf-8", "replace").decode("utf-8"))  # an error may hold half a character
    return path


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


def _numbers(frame: pd.DataFrame) -> dict[str, int]:
    return {str(arch): position for position, arch in enumerate(evaluations(frame)["arch"].unique(), start=1)}


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
