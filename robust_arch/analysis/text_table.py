"""A table of texts, written as Markdown and as LaTeX."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from robust_arch.errors import invalid

_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


@dataclass(frozen=True)
class Heading:
    """The heading of a column; numeric columns are aligned right."""

    text: str
    numeric: bool = True


@dataclass(frozen=True)
class TextTable:
    """Headings and rows of plain texts; `rules` are the rows (from 0) with a rule above them.

    Raises:
        InputError: for a row of another length than the headings.
    """

    head: Sequence[Heading]
    rows: Sequence[Sequence[str]]
    rules: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.head):
                raise invalid("row", list(row), f"{len(self.head)} cells, one per heading")


def markdown(table: TextTable) -> str:
    """The table in Markdown, which has no rules between rows."""
    lines = [
        [heading.text for heading in table.head],
        ["---:" if heading.numeric else "---" for heading in table.head],
        *table.rows,
    ]
    return "\n".join(f"| {' | '.join(map(_plain, line))} |" for line in lines)


def _plain(text: str) -> str:
    """Text that cannot end a Markdown cell or open an HTML tag."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def latex(table: TextTable, caption: str, label: str) -> str:
    r"""A table environment over both columns for \input, which needs booktabs; every text is escaped."""
    columns = "".join("r" if heading.numeric else "l" for heading in table.head)
    body = [("\\midrule\n" if place in table.rules else "") + _line(row) for place, row in enumerate(table.rows)]
    parts = [
        r"\begin{table*}",
        r"\centering\small\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{escaped(caption)}}}",
        rf"\label{{{label}}}",
        rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
        r"\toprule",
        _line([heading.text for heading in table.head]),
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table*}",
    ]
    return "\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """Text escaped for LaTeX; intervals in brackets are smaller and never broken over lines."""
    safe = "".join(_SPECIAL.get(letter, letter) for letter in text)
    return re.sub(r" (\[[^\]]*\])", r"~{\\scriptsize \1}", safe)


def _line(cells: Sequence[str]) -> str:
    line = " & ".join(map(escaped, cells)) + r" \\"
    return "{}" + line if line.startswith("[") else line  # else LaTeX reads it as an optional argument
