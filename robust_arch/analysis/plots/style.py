"""Sizes, fonts and colours of figures, and how they are written to files with reproducible bytes."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from matplotlib import RcParams, rc_context, rcParamsDefault
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase

from robust_arch.common.files import replacing

COLUMN, WIDE = 3.3, 6.8  # inches: one column, and the whole width of a two-column page

# distinguishable with any colour vision (Okabe and Ito 2008; blue and vermilion darkened for white paper)
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#B34700", "#009E73", "#AA4499", "#777777"
_LETTERS = (64, 125)  # of a heading in a line of 3.3 inches and of 6.8
BAND = "#80808033"  # grey through which white and dark paper show
COLOURMAP = "cividis"

_SETTINGS = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so every machine has the same letters
    "font.size": 7,
    "axes.labelsize": 7.5,
    "axes.titlesize": 7.5,
    "axes.titlelocation": "left",
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "legend.frameon": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.5,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.0,
    "lines.markersize": 4,
    "errorbar.capsize": 1.5,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-6, 9),
    "figure.dpi": 300,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,  # TrueType, which can be searched and printed
    "pdf.compression": 6,
    "svg.hashsalt": "robust_arch",  # names of clipping paths are random without it
}
_NOTHING: dict[str, dict[str, str | None]] = {
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
}
STYLE = RcParams(rcParamsDefault | _SETTINGS)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that size on paper, in inches."""
    with rc_context(STYLE):
        return Figure(figsize=(width, height), layout="constrained")


def write_heading(figure: FigureBase, text: str) -> None:
    """A few lines at the upper left corner, wrapped to the width of the figure."""
    root = figure.get_figure(root=True)
    wide = root is None or bool(root.get_figwidth() > COLUMN)
    wrapped = "\n".join(_wrapped(line, _LETTERS[wide]) for line in text.split("\n"))
    figure.suptitle(wrapped, fontsize=7 if wide else 6, x=0.01, ha="left")


def _wrapped(line: str, letters: int) -> str:
    """The line in several; a formula counts as one letter."""
    formulas = re.findall(r"\$[^$]*\$", line)
    text = textwrap.fill(re.sub(r"\$[^$]*\$", "\N{BULLET}", line), letters)
    for formula in formulas:
        text = text.replace("\N{BULLET}", formula, 1)
    return text


def letter_panels(panels: Sequence[Axes], first: str = "a") -> None:
    """Name the panels a, b, c... at their upper left corners; a single panel needs no name."""
    for place, axes in enumerate(panels if len(panels) > 1 or first != "a" else ()):
        letter = chr(ord(first) + place)
        axes.annotate(
            letter, (0, 1), (-9, 6), xycoords="axes fraction", textcoords="offset points", fontsize=8, fontweight="bold"
        )


def save(figure: Figure, folder: Path, stem: str = "figure") -> list[Path]:
    """Write `stem`.pdf and `stem`.png into `folder`; the same figure gives the same bytes."""
    paths = [folder / f"{stem}.{kind}" for kind in ("pdf", "png")]
    for path in paths:
        with replacing(path) as temporary:
            temporary.write_bytes(_bytes(figure, path.suffix[1:]))
    return paths


def png_bytes(figure: Figure, dpi: int) -> bytes:
    """The figure as a PNG on white."""
    return _bytes(figure, "png", dpi=dpi)


def svg_text(figure: Figure, stem: str = "figure", label: str = "") -> str:
    """The figure as an <svg> element without background, whose black parts have the colour of the text around it.

    Args:
        figure: what to write.
        stem: begins every id, so that a page can hold several figures.
        label: in words, for a reader who does not see the figure.
    """
    drawn = _bytes(figure, "svg", transparent=True).decode()
    content = drawn[drawn.index("<defs>") : drawn.rindex("</svg>")]
    # its only style would hold for the whole page, and no id of a group is used
    content = re.sub(r" *<style.*?</style>\n|(?<=<g) id=\"[^\"]*\"", "", content, flags=re.DOTALL)
    content = re.sub(r"(?<=\bid=\")|(?<=href=\"#)|(?<=url\(#)", f"{stem}-", content).replace("#000000", "currentColor")
    width, height = 72 * figure.get_size_inches()
    size = f'width="{width:g}pt" height="{height:g}pt" viewBox="0 0 {width:g} {height:g}"'
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    look = 'fill="currentColor" stroke-linejoin="round" stroke-linecap="butt"'  # letters that are black name no colour
    return f'<svg {names} {size} {look} role="img" aria-label={quoteattr(label)}>\n{content}</svg>\n'


def _bytes(figure: Figure, kind: str, **settings: Any) -> bytes:
    """The figure in a format, without dates."""
    buffer = BytesIO()
    with rc_context(STYLE):
        figure.savefig(buffer, format=kind, metadata=_NOTHING[kind], **settings)
    return buffer.getvalue()
