"""One static page a study: what was run, what came out, and how far it can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from robust_arch.analysis import figures, masking, paired, smoothness, wording
from robust_arch.analysis.groups import Group, evaluations, groups, main_group
from robust_arch.analysis.markup import Markup, element, joined, picture, simple_table
from robust_arch.analysis.points import Point, points
from robust_arch.analysis.tables import Extras, columns, html_table
from robust_arch.files import write_text


@dataclass(frozen=True)
class StudyDetails:
    """What a report says beyond results.csv.

    command: what reproduces the study. stage_shares: run_id to each stage's share of the stages' parameters, in
    [0, 1]. budget: in words, "60,000 parameters ±2%"; empty without one. planned: runs the plan holds. versions:
    package to version. best_val: run_id to the robust accuracy in percent on `n_val` held-out images that selected
    its checkpoint. errors: run_id of a failed or diverged run to the last line of its error. flags: run_id to
    what a reader must know of its training and evaluation, like a collapse. outcomes: run_id to (n,) booleans, robust
    in the worst case of the main group. diagnoses, smoothness, invalid: name of a network and its evaluation to what
    was recorded of masked gradients, of its stages, and to why its numbers are invalid.
    """

    name: str
    command: str
    stage_shares: Mapping[str, tuple[float, ...]]
    budget: str
    planned: int
    versions: Mapping[str, str]
    hardware: str
    best_val: Mapping[str, float] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)
    n_val: int | None = None
    outcomes: Mapping[str, np.ndarray] = field(default_factory=dict)
    diagnoses: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    smoothness: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    invalid: Mapping[str, str] = field(default_factory=dict)


def write_report(frame: pd.DataFrame, details: StudyDetails, path: Path) -> Path:
    """Writes the page in one step, folders included, and returns `path`. frame: the columns of results.csv."""
    template = Template(files("robust_arch.analysis").joinpath("report.html.template").read_text(encoding="utf-8"))
    title = f"Study {details.name}"
    page = template.substitute(title=joined(title), body=joined(element("h1", title), _body(frame, details)))
    write_text(path, page)
    return path


def _body(frame: pd.DataFrame, details: StudyDetails) -> Markup:
    # a run's place in the table must not depend on the order in which runs ended
    frame = frame.sort_values(["params", "arch", "seed"], kind="stable")
    main = main_group(frame)
    selected = _selected(main, details.best_val)
    extras = Extras(_numbers(frame), details.stage_shares, details.best_val, details.n_val, selected)
    return joined(
        element("p", *wording.summary(frame, main, extras, details.budget, details.planned)),
        _results(frame, main, extras),
        _figures(frame, main, extras),
        paired.section(main, details.outcomes, selected),
        masking.section(details.diagnoses),
        smoothness.section(details.smoothness),
        _failures(frame, details.errors),
        _invalid(details.invalid),
        _flags(frame, details.flags),
        _reproduction(details),
        _reading(),
    )


def _selected(main: Group | None, best_val: Mapping[str, float]) -> str | None:
    """The run of highest held-out accuracy; of equals the one with fewest parameters, which stands first."""
    candidates = [] if main is None else [str(run) for run in main.rows["run_id"] if run in best_val]
    return max(candidates, key=lambda run: best_val[run], default=None)


def _numbers(frame: pd.DataFrame) -> dict[str, int]:
    return {str(arch): position for position, arch in enumerate(evaluations(frame)["arch"].unique(), start=1)}


def _results(frame: pd.DataFrame, main: Group | None, extras: Extras) -> Markup:
    found = groups(frame)
    # the group of the figures comes first, then the others by size
    found.sort(key=lambda group: (main is None or group.key != main.key, -len(group.rows)))
    tables = [
        html_table(group, columns(group.rows, extras), extras.selected, f"{_capital(str(group))}.") for group in found
    ]
    lead = element("p", wording.tables(found, extras))
    return joined(element("h2", "Results"), lead, *tables)


def _figures(frame: pd.DataFrame, main: Group | None, extras: Extras) -> Markup:
    heading = element("h2", "Figures")
    if main is None:
        return joined(heading, element("p", wording.NO_FIGURE))
    left_out = [group for group in groups(frame) if group.key != main.key]
    found = points(main, extras.stage_shares)
    labels = {arch: str(position) for arch, position in extras.numbers.items()}
    by_params = figures.robust_against_params(main.rows, labels)
    return joined(
        heading,
        element("p", wording.shown(main)),
        element("ul", *(element("li", wording.left_out(group, main)) for group in left_out)) if left_out else Markup(),
        _share_figure(found, main, extras, labels),
        _figure("Figure 2: robust accuracy against the number of parameters.", by_params, wording.figure(found, main)),
        element("p", *wording.note(found, main), class_="note"),
    )


def _share_figure(found: list[Point], main: Group, extras: Extras, labels: dict[str, str]) -> Markup:
    known = [point for point in found if point.last_share is not None]
    if not known:
        return element("p", wording.NO_SHARES)
    facts = wording.figure(known, main) + wording.without_share(len(found) - len(known))
    figure = figures.robust_against_last_share(main.rows, extras.stage_shares, labels)
    return _figure("Figure 1: robust accuracy against the last stage's share of the parameters.", figure, facts)


def _figure(title: str, figure: Figure, facts: str) -> Markup:
    alt = f"Scatter plot. {title} {facts} The values stand in the first table."
    return element("figure", picture(figures.png(figure), alt), element("figcaption", f"{title} {facts}"))


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
    return joined(heading, simple_table("Failed and diverged runs", head, rows, message=4))


def _invalid(invalid: Mapping[str, str]) -> Markup:
    heading = element("h2", "Invalid evaluations")
    if not invalid:
        return joined(heading, element("p", "None: every evaluation passed its checks."))
    lead = element("p", "A check failed, so the numbers of these evaluations stand in no table.")
    return joined(heading, lead, element("ul", *(element("li", f"{name}: {why}") for name, why in invalid.items())))


def _flags(frame: pd.DataFrame, flags: Mapping[str, str]) -> Markup:
    names = frame.drop_duplicates("run_id").set_index("run_id")["arch"]
    heading = element("h2", "Warnings")
    if not flags:
        return joined(heading, element("p", "None."))
    return joined(
        heading,
        element("ul", *(element("li", f"{names.get(run, 'unknown')}, run {run}: {flags[run]}") for run in flags)),
    )


def _reproduction(details: StudyDetails) -> Markup:
    versions = ", ".join(f"{package} {version}" for package, version in details.versions.items())
    return joined(
        element("h2", "Reproduction"),
        element("pre", element("code", details.command)),
        element("p", f"Versions: {versions or 'not recorded'}."),
        element("p", f"Hardware: {details.hardware or 'not recorded'}."),
    )


def _reading() -> Markup:
    entries = [joined(element("dt", term), element("dd", meaning)) for term, meaning in wording.DEFINITIONS.items()]
    return joined(element("h2", "How to read this"), element("dl", *entries))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
