"""What a reader meets in every figure of experiments/, drawn from planted records: texts, labels, legends, units."""

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text

from experiments import __main__ as command
from experiments.published import uniform
from experiments.recorded import recorded
from robust_arch.analysis.plots.of_study import figures_at

FIGURES = command.items("figure")


def corners_of(text, renderer):
    """The corners of a text's rectangle in pixels, half a pixel inside, (4, 2): turned with the text."""
    slope = np.radians(text.get_rotation())
    centre = np.mean(Text.get_window_extent(text, renderer).get_points(), axis=0)
    text.set_rotation(0)
    half = Text.get_window_extent(text, renderer).size / 2 - 0.5
    text.set_rotation(np.degrees(slope))
    turn = np.array([[np.cos(slope), np.sin(slope)], [-np.sin(slope), np.cos(slope)]])
    return centre + np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * half @ turn


def apart(one, other):
    """Whether two rectangles have no point in common: then a side of one of them separates them."""
    for corners in (one, other):
        for side in (corners[1] - corners[0], corners[2] - corners[1]):
            if (one @ side).max() < (other @ side).min() or (other @ side).max() < (one @ side).min():
                return True
    return False


def shrunk(text):
    """The exponent of a power of ten is printed at 0.7 of the size of its text."""
    return 0.7 if text.startswith(r"$\mathdefault{") and "^" in text else 1


@pytest.fixture
def legible(monkeypatch):
    """Checks every text that is drawn: inside the figure, over no other text, at least 6 points high."""
    boxes = {}
    draw = Text.draw

    def noted(self, renderer):
        if self.get_visible() and self.get_text().strip():
            corners = corners_of(self, renderer)
            boxes[id(self)] = (self.get_text(), corners, self.get_fontsize() * shrunk(self.get_text()))
        draw(self, renderer)

    def check(figure):
        boxes.clear()
        monkeypatch.setattr(Text, "draw", noted)
        FigureCanvasAgg(figure).draw()
        frame = figure.bbox
        for text, corners, size in boxes.values():
            inside = (corners >= frame.min).all() and (corners <= frame.max).all()
            assert inside, f"{text!r} leaves the figure"
            assert size >= 6, f"{text!r} is printed at {size} points"
        for (first, one, _), (second, other, _) in itertools.combinations(boxes.values(), 2):
            assert apart(one, other), f"{first!r} overlaps {second!r}"
        return len(boxes)

    return check


def drawn(item, studies):
    """The item's figure from the planted records, laid out."""
    module = command.import_module(f"experiments.{item}.figure")
    figure = module.draw(recorded(module.STUDIES, studies))
    FigureCanvasAgg(figure).draw()
    return figure


@pytest.mark.parametrize("item", FIGURES)
def test_every_text_is_legible(studies, legible, item):
    figure = drawn(item, studies)
    assert figure.get_figwidth() in (3.3, 6.8)  # a column's width, or both columns'
    assert legible(figure) > 10


@pytest.mark.parametrize("study", ["stage_width", "stage_depth", "capacity", "budget", "families", "overfitting"])
def test_every_text_of_a_studys_own_figures_is_legible(studies, legible, study):
    for drawn_ in figures_at(studies / study):
        assert legible(drawn_.figure) > 10, drawn_.name


def test_the_check_of_legibility_can_fail(legible):
    for places in ((0.5, 0.51), (0.1, 0.99)):
        figure = Figure()
        for x in places:
            figure.text(x, 0.5, "words")
        with pytest.raises(AssertionError, match=r"overlaps|leaves"):
            legible(figure)


def test_rotated_texts_are_compared_as_drawn():
    square = np.array([(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)])
    diamond = np.array([(0.0, -1.0), (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0)])
    # their corners at 45 degrees: the diamond ends sqrt(1/2) from its middle, the square begins sqrt(2) * 0.6 from it
    assert apart(square + 0.6, diamond)
    assert not apart(square + 0.4, diamond)


@pytest.mark.parametrize("item", FIGURES)
def test_no_legend_lies_where_data_is_drawn(studies, item):
    figure = drawn(item, studies)
    legends = figure.findobj(Legend)
    for legend, axes in itertools.product(legends, figure.axes):
        assert not legend.get_window_extent().overlaps(axes.get_window_extent()), f"{legend} in {axes}"
    assert legends or item == "smoothness"  # whose points are all of one kind


@pytest.mark.parametrize("item", FIGURES)
def test_every_figure_names_data_threat_images_and_seeds(studies, item):
    words = " ".join(text.get_text() for text in drawn(item, studies).findobj(Text))
    for part in ("digits", r"$\epsilon$=0.2", "360 test images", "seed"):
        assert part in words, f"{part!r} is missing"


@pytest.mark.parametrize("item", ["capacity", "tradeoff"])
def test_every_published_network_is_named_at_its_own_point(studies, published, item):
    figure = drawn(item, studies)
    accuracies = {row["name"]: row["cifar10"] for row in published["last_stage_comparison"]["rows"]}
    names = accuracies.keys() if item == "tradeoff" else {network.name for network in uniform()}
    panels = [axes for axes in figure.axes if any(text.get_text() in names for text in axes.texts)]
    assert len(panels) == {"capacity": 2, "tradeoff": 1}[item]
    for axes in panels:
        places = axes.transData.transform(np.vstack([bars.lines[0].get_xydata() for bars in axes.containers]))
        # above 60% is WRN-34-R with more images, which has another accuracy
        labels = [text for text in axes.texts if text.get_text() in names and text.xy[1] < 60]
        assert sorted(text.get_text() for text in labels) == sorted(names)
        for text in labels:
            values = accuracies[text.get_text()]
            expected = (values["clean"], values["autoattack"]) if item == "tradeoff" else (text.xy[0], values["pgd20"])
            assert text.xy == expected
            own, nearest = distances(text, axes, places)
            assert own <= nearest
            assert text.arrow_patch is not None or 2 * own <= nearest, f"{text.get_text()} could be another's"


def distances(text, axes, places):
    """Pixels from a label to its own point, and to the nearest of the others."""
    box = Text.get_window_extent(text)
    gaps = np.hypot(*np.maximum(np.maximum(box.min - places, places - box.max), 0).T)
    own = np.isclose(places, axes.transData.transform(text.xy)).all(axis=1)
    assert own.any()
    return gaps[own].min(), gaps[~own].min()


@pytest.mark.parametrize(
    ("item", "units"),
    [
        ("theory", {"(channels)", "(blocks)"}),
        ("stage_width", {"(channels)"}),
        ("stage_depth", {"(blocks)"}),
        ("tradeoff", {"(%)"}),
    ],
)
def test_axes_have_units(studies, item, units):
    assert {axes.get_xlabel().split()[-1] for axes in drawn(item, studies).axes} == units


def test_ranking_distinguishes_intervals_from_standard_deviations(studies):
    (legend,) = drawn("ranking", studies).findobj(Legend)
    left, stages = legend.get_title().get_text().split("By stage: ")
    assert "interval" in left
    assert "standard deviation" in stages
    assert not any("deviation" in text.get_text() for text in legend.get_texts())  # left and right share these
