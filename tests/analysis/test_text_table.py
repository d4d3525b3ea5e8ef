"""Tables as Markdown and LaTeX, read back cell by cell."""

import shutil
import subprocess
from pathlib import Path

import pytest

from robust_arch.analysis.text_table import Heading, TextTable, latex, markdown
from robust_arch.errors import InputError

TABLE = TextTable(
    (Heading("family", numeric=False), Heading("robust (%)"), Heading("note", numeric=False)),
    [["wide_resnet", "69.4 [64.5, 74.0]", "50% & more"], ["[a]", "-", "a|b ~ {x}^2 #1 $5 \\n"]],
    frozenset({1}),
)


def test_markdown_by_hand() -> None:
    assert markdown(TABLE).splitlines() == [
        "| family | robust (%) | note |",
        "| --- | ---: | --- |",
        "| wide_resnet | 69.4 [64.5, 74.0] | 50% & more |",
        "| [a] | - | a\\|b ~ {x}^2 #1 $5 \\n |",
    ]


def test_latex_by_hand() -> None:
    lines = latex(TABLE, "Two rows & 100%.", "tab:x").splitlines()
    body = lines[lines.index(r"\toprule") :]
    assert r"\caption{Two rows \& 100\%.}" in lines
    assert r"\begin{tabular}{@{}lrl@{}}" in lines
    assert body[:-2] == [
        r"\toprule",
        r"family & robust (\%) & note \\",
        r"\midrule",
        r"wide\_resnet & 69.4~{\scriptsize [64.5, 74.0]} & 50\% \& more \\",
        r"\midrule",
        r"{}[a] & - & a|b \textasciitilde{} \{x\}\textasciicircum{}2 \#1 \$5 \textbackslash{}n \\",
        r"\bottomrule",
    ]


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(InputError, match="2 cells"):
        TextTable((Heading("a"), Heading("b")), [["1"]])


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on this machine")
def test_latex_compiles(tmp_path: Path) -> None:
    head = r"\documentclass{article}\usepackage{booktabs}\begin{document}"
    page = head + latex(TABLE, "a_b", "tab:a") + r"\end{document}"
    (tmp_path / "page.tex").write_text(page)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
