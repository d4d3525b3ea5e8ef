"""The section shows what is recorded: each verdict in words, each number in the figure, nothing invented."""

import re
from typing import Any

import pytest
from matplotlib.axes import Axes

from robust_arch.analysis.report.gradient_masking import Diagnosis, figure, section
from robust_arch.analysis.report.templating import render

N = 200
RADII = [("0", 0.0, 190), ("4/255", 4 / 255, 150), ("8/255", 8 / 255, 110), ("16/255", 16 / 255, 30), ("1", 1.0, 0)]
STEPS = [(1, 140), (2, 130), (5, 125), (10, 121), (20, 118), (50, 116), (100, 115)]
NAMES = ("eps", "steps", "square", "directions", "repeat")


def share(count: int) -> dict[str, Any]:
    percent = 100 * count / N
    return {"count": count, "n": N, "percent": percent, "interval": [max(percent - 5, 0), min(percent + 5, 100)]}


def planted(*flagged: str, scale: float = 1.0) -> Diagnosis:
    """A diagnosis as it is recorded, with these checks flagged."""
    losses = {
        "gradient": [scale * loss for loss in (0.5, 1.0, 2.5)],
        "random": [scale * loss for loss in (0.5, 0.5, 0.75)],
        "wins": share(196),
    }
    verdicts = [{"name": name, "ok": name not in flagged, "text": f"Text of {name}, <{N}>."} for name in NAMES]
    content = {
        "n": N,
        "norm": "linf",
        "threat": "linf-8/255",
        "eps": {"points": [{"eps": eps, "radius": r, **share(count)} for eps, r, count in RADII], "classes": 10},
        "steps": [{"steps": steps, "rel_step_size": min(1, 2.5 / steps), **share(count)} for steps, count in STEPS],
        "square": {"queries": 1000, "white_box": share(110), "both": share(109), "broken": share(1)},
        "directions": {"rel_t": [0, 1, 2], "cross_entropy": losses, "margin": losses, "no_gradient": share(0)},
        "repeat": {"changed": share(0)},
        "verdicts": verdicts,
        "flagged": bool(flagged),
    }
    return Diagnosis.read(content)


def shown(diagnoses: dict[str, Diagnosis]) -> str:
    return render("gradient_masking.html.jinja", masking=section(diagnoses))


def drawn(axes: Axes) -> list[list[float]]:
    return [
        line.get_ydata().tolist() for line in axes.get_lines() if len(line.get_ydata()) and line.get_marker() == "o"
    ]


def test_without_diagnoses_there_is_no_section() -> None:
    assert section({}) is None


def test_each_network_has_its_verdicts_in_words() -> None:
    text = shown({"net-a": planted(), "net-b <x>": planted("square", "directions")})
    assert re.findall("<h3>(.*?)</h3>", text) == ["net-a", "net-b &lt;x&gt;"]
    first, second = text.split("<h3>")[1:]
    assert [item.count("passed") for item in (first, second)] == [5, 3]
    assert [item.count("FLAGGED") for item in (first, second)] == [0, 2]
    assert "Nothing flagged." in first
    assert "Flagged by: White box against Square attack, Gradient against random directions." in second
    for part in (first, second):
        assert part.count("<li>") == 5
        assert all(f"Text of {name}, &lt;{N}&gt;." in part for name in NAMES)


def test_the_figure_has_an_alternative_text() -> None:
    (label,) = re.findall('<svg [^>]*aria-label="(.*?)"', shown({"net-a": planted("steps")}))
    for part in ("net-a", "200 test images", "linf-8/255"):
        assert part in label


def test_what_is_drawn_is_what_is_recorded() -> None:
    eps, steps, square, directions = figure(planted()).axes
    assert drawn(eps) == [[count / 2 for _, _, count in RADII]]
    assert drawn(steps) == [[count / 2 for _, count in STEPS]]
    assert drawn(square) == [[55.0, 54.5]]
    assert [list(line.get_ydata()) for line in directions.get_lines()] == [[0, 0.5, 2.0], [0, 0, 0.25]] * 2
    assert [label.get_text() for label in eps.get_xticklabels()] == [eps for eps, *_ in RADII]
    assert [text.get_text() for text in square.texts] == ["110 of 200", "109 of 200"]


def test_axes_name_their_units_and_the_title_n() -> None:
    panels = figure(planted())
    assert panels.get_suptitle() == "200 test images, linf-8/255"
    for axes in panels.axes:
        assert axes.get_xlabel()
        assert "(" in axes.get_ylabel()
        assert axes.get_title(loc="left")


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_texts_do_not_cover_one_another(scale: float) -> None:
    panels = figure(planted(scale=scale))
    panels.draw_without_rendering()
    for axes in panels.axes:
        labels = [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts, *axes.get_xticklabels()]
        boxes = [label.get_window_extent() for label in labels if label.get_text()]
        assert all(not box.count_overlaps(boxes[:position]) for position, box in enumerate(boxes))
