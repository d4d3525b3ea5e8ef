"""What the checks for masked gradients found: one line per check, and the four figures behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from robust_arch.analysis.formatting import counted
from robust_arch.analysis.plots.study_figure import StudyFigure
from robust_arch.analysis.plots.style import BLUE, ORANGE
from robust_arch.runs.records import Diagnosis, Share, Verdict

_WIDTH, _HEIGHT = 7.2, 6.0  # inches
_DRAWN = 8  # networks with a figure, each about 100 KB
_NORMS = {"linf": "l-inf", "l2": "l2"}
_TITLES = {
    "eps": "Accuracy against eps",
    "steps": "Accuracy against steps",
    "losses": "White-box losses against each other",
    "square": "White box against Square attack",
    "transfer": "White box against images made on other networks",
    "directions": "Gradient against random directions",
    "repeat": "The same answer twice",
}


def section(diagnoses: Mapping[str, Diagnosis]) -> dict[str, Any] | None:
    """The report's section: the checks and the figure of each network, or None without any.

    Of many networks the flagged ones come first.
    """
    if not diagnoses:
        return None
    # a flag must not be lost among hundreds of networks
    ordered = sorted(diagnoses.items(), key=lambda item: len(diagnoses) > _DRAWN and not _flagged(item[1]))
    further = ordered[_DRAWN:]
    flagged = sum(bool(_flagged(diagnosis)) for _, diagnosis in further)
    return {
        "networks": [_network(place, *item) for place, item in enumerate(ordered[:_DRAWN], start=1)],
        "further": [f"{name}: {_result(diagnosis)}" for name, diagnosis in further],
        "summary": f"{counted(len(further), 'further network')}, {flagged:,} of them flagged; cards list the checks",
    }


def figure(diagnosis: Diagnosis) -> Figure:
    """Accuracy against eps, against steps, before and after the Square attack; losses along directions."""
    drawn = Figure(figsize=(_WIDTH, _HEIGHT))
    drawn.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)
    drawn.suptitle(f"{diagnosis.n} test images, {diagnosis.threat}", fontsize="medium", parse_math=False)
    panels = drawn.subplots(2, 2).flat
    for axes, (name, draw) in zip(panels, _PANELS.items(), strict=True):
        axes.set_title(_TITLES[name], fontsize="small", loc="left")
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize="small")
        draw(axes, diagnosis)
        axes.xaxis.label.set_size("small")
        axes.yaxis.label.set_size("small")
    return drawn


def _network(place: int, name: str, diagnosis: Diagnosis) -> dict[str, Any]:
    return {
        "name": name,
        "result": _result(diagnosis),
        "checks": [(_state(check), check.text) for check in diagnosis.verdicts],
        "figure": StudyFigure(
            f"gradient_masking-{place}",
            f"Checks for masked gradients of {name} on {diagnosis.n} test images under {diagnosis.threat}",
            "Accuracy against eps, against steps, before and after the Square attack; losses along gradient and random "
            "directions. Error bars: Wilson 95% intervals. The numbers are in the list.",
            figure(diagnosis),
        ),
    }


def _flagged(diagnosis: Diagnosis) -> list[str]:
    return [_title(check) for check in diagnosis.verdicts if not check.ok]


def _result(diagnosis: Diagnosis) -> str:
    flagged = _flagged(diagnosis)
    return f"Flagged by: {', '.join(flagged)}." if flagged else "Nothing flagged."


def _title(check: Verdict) -> str:
    """The title of a check; one that a later version added keeps its name."""
    return _TITLES.get(check.name, check.name)


def _state(check: Verdict) -> str:
    return f"{_title(check)}: {'passed' if check.ok else 'FLAGGED'}."


def _accuracy(axes: Axes, x: Sequence[float], shares: Sequence[Share], line: str) -> None:
    percent = [share.percent for share in shares]
    # an accuracy of 0 or 100 is the end of its interval, and rounding must not move it outside
    below = [max(share.percent - share.interval[0], 0.0) for share in shares]
    above = [max(share.interval[1] - share.percent, 0.0) for share in shares]
    axes.errorbar(x, percent, yerr=[below, above], fmt=f"o{line}", color=BLUE, capsize=3, elinewidth=1, markersize=4)
    axes.set_ylim(-4, 104)
    axes.set_ylabel("Accuracy (%)")


def _draw_eps(axes: Axes, diagnosis: Diagnosis) -> None:
    rows = diagnosis.eps.points
    # radii range from far below eps to the whole box, so they are evenly spaced and labelled
    _accuracy(axes, range(len(rows)), rows, "-")
    axes.set_xticks(range(len(rows)), [row.eps for row in rows], fontsize="x-small")
    axes.set_xlabel(f"Radius, {_NORMS[diagnosis.norm]}, images in [0, 1] (not to scale)")


def _draw_steps(axes: Axes, diagnosis: Diagnosis) -> None:
    rows = diagnosis.steps
    _accuracy(axes, [row.steps for row in rows], rows, "-")
    axes.set_xscale("log")
    axes.set_xticks([row.steps for row in rows], [str(row.steps) for row in rows])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("Gradient steps at eps")


def _draw_square(axes: Axes, diagnosis: Diagnosis) -> None:
    shares = [diagnosis.square.white_box, diagnosis.square.both]
    _accuracy(axes, [0, 1], shares, "")
    for x, share in enumerate(shares):
        label = f"{share.count} of {share.n}"
        text = axes.annotate(label, (x, share.percent), (7, 0), textcoords="offset points")
        text.set(va="center", fontsize="small")
    axes.set_xlim(-0.5, 1.7)
    axes.set_xticks([0, 1], ["white box", "with Square"])
    axes.set_xlabel("Attacks at eps, worst case over them")


def _draw_directions(axes: Axes, diagnosis: Diagnosis) -> None:
    found = diagnosis.directions
    for lines, label, line in ((found.cross_entropy, "cross-entropy", "-"), (found.margin, "margin", "--")):
        for losses, way, colour in ((lines.gradient, "gradient", BLUE), (lines.random, "random", ORANGE)):
            rise = [loss - losses[0] for loss in losses]
            axes.plot(found.rel_t, rise, line, color=colour, label=f"{label}, {way}")
    axes.set_xlabel("Distance from the image (eps)")
    axes.set_ylabel("Rise of the mean loss (nats; logits)")
    axes.margins(y=0.1)
    axes.legend(fontsize="x-small", frameon=False, handlelength=3.5)


_PANELS = {"eps": _draw_eps, "steps": _draw_steps, "square": _draw_square, "directions": _draw_directions}
