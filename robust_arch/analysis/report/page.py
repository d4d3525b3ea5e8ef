"""One page a study: what was run, what came out, and how far it can be trusted."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from string import Template

import pandas as pd

from robust_arch.analysis import masking, paired, smoothness
from robust_arch.analysis.groups import Group, evaluations, main_group
from robust_arch.analysis.markup import Markup, element, folded, joined, simple_table
from robust_arch.analysis.report import data, pictures, results, verdicts, wording
from robust_arch.analysis.report.details import StudyDetails
from robust_arch.analysis.tables import Extras
from robust_arch.files import write_text

_SCRIPTS = ("data", "view", "table", "card", "scale", "plot", "tip", "page")  # one scope; `page`, last, starts it
_OPEN_ROWS = 20  # of a list; a longer one is folded


def write_report(frame: pd.DataFrame, details: StudyDetails, path: Path) -> Path:
    """Writes the page in one step, folders included, and returns `path`. frame: the columns of results.csv."""
    # a run's place in the table must not depend on the order in which runs ended
    frame = frame.sort_values(["params", "arch", "seed"], kind="stable")
    main = main_group(frame)
    selected = _selected(main, details.best_val)
    extras = Extras(_numbers(frame), details.stage_shares, details.best_val, details.n_val, selected)
    title, script = f"Study {details.name}", _script()
    page = Template(_asset("page.html.template")).substitute(
        title=joined(title),
        style=_asset("page.css"),
        body=joined(element("h1", title), _body(frame, main, extras, details)),
        data=data.block(frame, main, extras, details),
        script=script,
        script_hash=f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
    )
    write_text(path, page.encode("utf-8", "replace").decode("utf-8"))  # an error may hold half a character
    return path


def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _script() -> str:
    """The page's only script; the page lets no other one run."""
    parts = "\n".join(_asset(f"scripts/{name}.js") for name in _SCRIPTS)
    return f'"use strict";\n(() => {{\n{parts}}})();\n'


def _body(frame: pd.DataFrame, main: Group | None, extras: Extras, details: StudyDetails) -> Markup:
    return joined(
        element("p", *wording.summary(frame, main, extras, details.budget, details.planned)),
        verdicts.section(main),
        results.explorer(),
        results.section(frame, main, extras),
        pictures.section(frame, main, extras),
        paired.section(main, details.outcomes, extras.selected),
        masking.section(details.diagnoses),
        smoothness.section(details.smoothness),
        _failures(frame, details.errors),
        _invalid(details.invalid),
        _flags(frame, details.flags, details.left_out),
        _reproduction(details),
        _reading(),
    )


def _selected(main: Group | None, best_val: Mapping[str, float]) -> str | None:
    """The run of highest held-out accuracy; of equals the one with fewest parameters, which stands first."""
    candidates = [] if main is None else [str(run) for run in main.rows["run_id"] if run in best_val]
    return max(candidates, key=lambda run: best_val[run], default=None)


def _numbers(frame: pd.DataFrame) -> dict[str, int]:
    return {str(arch): position for position, arch in enumerate(evaluations(frame)["arch"].unique(), start=1)}


def _failures(frame: pd.DataFrame, errors: Mapping[str, str]) -> Markup:
    lost = frame[frame["status"].isin(("failed", "diverged"))].drop_duplicates("run_id")
    heading = element("h2", "Failed and diverged runs")
    if lost.empty:
        return joined(heading, element("p", "None."))
    rows = [
        [
            str(row["run_id"]),
            *(wording.plain(row[name]) for name in ("arch", "seed", "status")),
            errors.get(str(row["run_id"]), "not recorded"),
        ]
        for row in lost.to_dict("records")
    ]
    head = ("run", "architecture", "seed", "status", "error")
    table = simple_table("Failed and diverged runs", head, rows, messages=(4,))
    return joined(heading, _open_or_folded(table, len(rows), "failed and diverged runs"))


def _invalid(invalid: Mapping[str, str]) -> Markup:
    heading = element("h2", "Invalid evaluations")
    if not invalid:
        return joined(heading, element("p", "None: every evaluation passed its checks."))
    lead = element("p", "A check failed, so the numbers of these evaluations stand in no table.")
    listed = element("ul", *(element("li", f"{name}: {why}") for name, why in invalid.items()))
    return joined(heading, lead, _open_or_folded(listed, len(invalid), "invalid evaluations"))


def _flags(frame: pd.DataFrame, flags: Mapping[str, str], left_out: Mapping[str, str]) -> Markup:
    names = frame.drop_duplicates("run_id").set_index("run_id")["arch"]
    heading = element("h2", "Warnings")
    told = [f"left out: {what}: {why}" for what, why in left_out.items()]
    told += [f"{names.get(run, 'unknown')}, run {run}: {flags[run]}" for run in flags]
    if not told:
        return joined(heading, element("p", "None."))
    listed = element("ul", *(element("li", text) for text in told))
    return joined(heading, _open_or_folded(listed, len(told), "warnings"))


def _open_or_folded(content: Markup, count: int, what: str) -> Markup:
    return content if count <= _OPEN_ROWS else folded(f"{count:,} {what}", content)


def _reproduction(details: StudyDetails) -> Markup:
    versions = ", ".join(f"{package} {version}" for package, version in details.versions.items())
    return joined(
        element("h2", "Reproduction"),
        element("pre", element("code", details.command or "# not recorded")),
        element("p", f"Versions: {versions or 'not recorded'}."),
        element("p", f"Hardware: {details.hardware or 'not recorded'}."),
    )


def _reading() -> Markup:
    entries = [joined(element("dt", term), element("dd", meaning)) for term, meaning in wording.DEFINITIONS.items()]
    return joined(element("h2", "How to read this"), element("dl", *entries))
