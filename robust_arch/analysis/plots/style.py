"""Sizes, fonts and colours of figures, and how they are written to files with reproducible bytes."""

from __future__ import annotations

from pathlib import Path

from matplotlib import RcParams, rc_context, rcParamsDefault
from matplotlib.figure import Figure

from robust_arch.common.files import replacing

COLUMN, WIDE = 3.3, 6.8  # inches: one column, and the whole width of a two-column page

# distinguishable with any colour vision (Okabe and Ito 2008; blue and vermilion darkened for white paper)
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#B34700", "#009E73", "#AA4499", "#777777"
BAND = "#E6E6E6"
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
}
STYLE = RcParams(rcParamsDefault | _SETTINGS)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that size on paper, in inches."""
    with rc_context(STYLE):
        return Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, folder: Path, stem: str = "figure") -> list[Path]:
    """Write `stem`.pdf and `stem`.png into `folder`, without dates, so that the same figure gives the same bytes."""
    nothing: dict[str, dict[str, str | None]] = {
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
        "png": {"Software": None},
    }
    paths = []
    with rc_context(STYLE):
        for kind, metadata in nothing.items():
            paths.append(folder / f"{stem}.{kind}")
            with replacing(paths[-1]) as temporary:
                figure.savefig(temporary, format=kind, metadata=metadata)
    return paths
