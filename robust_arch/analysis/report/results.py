"""The report's results: the plot and table to work with, and tables that need no script."""

from __future__ import annotations

from importlib.resources import files

import pandas as pd

from robust_arch.analysis.groups import Group, groups
from robust_arch.analysis.markup import Markup, element, joined
from robust_arch.analysis.report import wording
from robust_arch.analysis.report.data import ordered_groups
from robust_arch.analysis.tables import Extras, columns, html_table

_STATIC_ROWS = 50


def explorer() -> Markup:
    """The frame that the page's script fills; without the script it stays hidden."""
    return Markup(files(__package__).joinpath("explorer.html").read_text(encoding="utf-8"))


def section(frame: pd.DataFrame, main: Group | None, extras: Extras) -> Markup:
    """A table a group, of at most its first rows; the script puts the explorer in their place."""
    found = ordered_groups(groups(frame), main)
    lead = element("p", wording.tables(found, extras))  # says what numbers and stars mean, to the explorer as well
    tables = [_table(group, extras) for group in found]
    return joined(lead, element("section", element("h2", "Results"), *tables, id="static"))


def _table(group: Group, extras: Extras) -> Markup:
    title = str(group)
    caption = f"{title[:1].upper()}{title[1:]}.{wording.cut(_STATIC_ROWS, len(group.rows))}"
    return html_table(group.rows.head(_STATIC_ROWS), columns(group.rows, extras), extras.selected, caption)
