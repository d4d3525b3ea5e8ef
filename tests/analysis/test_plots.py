"""What each figure passes to its axes, against values worked out by hand; bytes that are the same each time."""

import math
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.axes import Axes
from planted_studies import BASE, divisions, epochs, frame, rows, spread, stage_changes, wide

from robust_arch.analysis.groups import Group, main_group
from robust_arch.analysis.networks import networks
from robust_arch.analysis.plots.by_stage import against_stage
from robust_arch.analysis.plots.captions import attack_text, conditions, conditions_without_bars, threat_text
from robust_arch.analysis.plots.cost import draw_costs
from robust_arch.analysis.plots.curves import curves, training_curves
from robust_arch.analysis.plots.marks import Mark, write_labels
from robust_arch.analysis.plots.pooled import pooled
from robust_arch.analysis.plots.ranking import best_against_worst
from robust_arch.analysis.plots.scatter import draw_scatter, rank_title
from robust_arch.analysis.plots.series import Series
from robust_arch.analysis.plots.simplex import on_simplex, position
from robust_arch.analysis.plots.style import new_figure, save
from robust_arch.architectures import ArchSpec, cost
from robust_arch.errors import InputError

Points = list[tuple[float, float]]


def group_of(planted: pd.DataFrame) -> Group:
    found = main_group(planted)
    assert found is not None
    return found


def planted_group(specs: list[ArchSpec]) -> Group:
    return group_of(frame(rows(specs, spread(specs))))


@pytest.fixture
def runs() -> pd.DataFrame:
    """Three seeds of one network."""
    return frame(rows([wide(*BASE)], spread([wide(*BASE)])))


def drawn(axes: Axes) -> list[Points]:
    """The points of each set of error bars, in the order of drawing."""
    return [[(float(x), float(y)) for x, y in bars.lines[0].get_xydata()] for bars in axes.containers]


def test_each_panel_changes_one_stage() -> None:
    # planted means: base 62, then stage 1 at 4 and 16: 64 and 66, stage 2: 68 and 70, stage 3: 72 and 74
    figure = against_stage(planted_group(stage_changes("widths")), "widths")
    assert [drawn(axes) for axes in figure.axes] == [
        [[(4, 64), (16, 66)], [(8, 62)]],
        [[(8, 68), (32, 70)], [(16, 62)]],
        [[(16, 72), (64, 74)], [(32, 62)]],
    ]
    assert [axes.get_xlabel() for axes in figure.axes] == [f"Width of stage {i} (channels)" for i in (1, 2, 3)]
    group = planted_group(stage_changes("depths"))
    assert drawn(against_stage(group, "depths").axes[2]) == [[(1, 72), (4, 74)], [(2, 62)]]
    with pytest.raises(InputError, match="widths of one stage"):
        against_stage(group, "widths")


def test_the_front_is_drawn_through_what_nothing_dominates() -> None:
    figure = new_figure(3, 3)
    axes = figure.add_subplot()
    ys = (50, 49, 60, 55)
    marks = [Mark(10.0**place, y, y - 1, y + 2) for place, y in enumerate(ys)]
    draw_costs(axes, [Series("a", marks[:2], "blue", "o"), Series("b", marks[2:], "red", "s")], "Parameters")
    (front,) = [line for line in axes.lines if line.get_label() == "Pareto front of the means"]
    # 50 for 1, then 60 for 100, and nothing better up to the edge of the axes
    assert front.get_xydata().tolist() == [[1, 50], [100, 60], [axes.get_xlim()[1], 60]]
    assert front.get_drawstyle() == "steps-post"
    assert drawn(axes) == [[(1, 50), (10, 49)], [(100, 60), (1000, 55)]]


@pytest.mark.parametrize(("second", "allowed", "front"), [(105, True, True), (104, True, False), (105, False, False)])
def test_no_front_is_drawn_over_equal_costs_or_within_the_noise(second: float, allowed: bool, front: bool) -> None:
    # a budget's tolerance of 2%: 100 and 104 may be of one budget, 100 and 105 may not
    axes = new_figure(3, 3).add_subplot()
    marks = [Mark(100, 50, 50, 50), Mark(second, 60, 60, 60)]
    draw_costs(axes, [Series("a", marks, "blue", "o")], "Parameters", front=allowed)
    assert any(line.get_drawstyle() == "steps-post" for line in axes.lines) is front


def test_costs_have_a_prefix() -> None:
    axes = new_figure(3, 3).add_subplot()
    draw_costs(axes, [Series("a", [Mark(500, 50, 50, 50), Mark(2e10, 60, 60, 60)], "blue", "o")], "Parameters")
    texts = [axes.xaxis.get_major_formatter()(value) for value in (500, 20_000, 1.5e6, 1e10)]
    assert texts == ["500", "20k", "1.5M", "10G"]


def test_places_in_the_triangle() -> None:
    height = math.sqrt(3) / 2
    assert [position(corner) for corner in ((1, 0, 0), (0, 1, 0), (0, 0, 1))] == [(0, 0), (0.5, height), (1, 0)]
    assert position((1 / 3, 1 / 3, 1 / 3)) == pytest.approx((0.5, height / 3))
    with pytest.raises(InputError, match="stages = 4"):
        on_simplex(planted_group([ArchSpec("resnet", (1, 1, 1, 1), (8, 8, 8, 8))]), {})


def test_the_simplex_shows_shares_and_accuracies() -> None:
    specs = divisions()
    figure = on_simplex(planted_group(specs), {"all in stage 3": (0.0, 0.0, 1.0)})
    (dots,) = figure.axes[0].collections
    places = [position(cost(spec).shares()) for spec in specs]
    assert [tuple(place) for place in dots.get_offsets().tolist()] == [pytest.approx(place) for place in places]
    assert dots.get_array().tolist() == [62, 64, 66, 68, 70, 72, 74, 76]
    marked = {line.get_label(): line.get_xydata()[0].tolist() for line in figure.axes[0].lines}
    assert marked["all in stage 3"] == [1, 0]
    assert {name for name in marked if not str(name).startswith("_")} == {"equal shares", "all in stage 3"}


def test_each_scale_of_the_triangle_gives_the_share_of_the_stage_it_names() -> None:
    figure = on_simplex(planted_group(divisions()), {})
    scales: dict[int, list[tuple[str, float]]] = {0: [], 1: [], 2: []}
    titles = {}
    for text in figure.axes[0].texts:
        x, y = text.get_position()
        second = 2 * y / math.sqrt(3)
        shares = (1 - x - second / 2, second, x - second / 2)  # barycentric: outside of a side one is negative
        stage = (shares.index(min(shares)) + 1) % 3
        if text.get_text().isdigit():
            scales[stage].append((text.get_text(), round(100 * shares[stage], 6)))
        elif "share" in text.get_text():
            titles[stage] = text.get_text().strip("\N{LEFTWARDS ARROW}\N{RIGHTWARDS ARROW} ")
    assert titles == {stage: f"share of stage {stage + 1} (%)" for stage in range(3)}
    assert list(scales.values()) == [[("25", 25), ("50", 50), ("75", 75)]] * 3


def test_quarters_by_stage_are_means_and_standard_deviations() -> None:
    figure = best_against_worst(planted_group(divisions()))
    ranks, shares, widths = figure.axes
    assert drawn(ranks) == [[(76.0 - 2 * place, 1 + place)] for place in range(8)]
    assert [tick.get_text() for tick in ranks.get_yticklabels()][:2] == ["30-8-8", "16-24-16"]
    # best: 30-8-8 and 16-24-16; worst: 28-12-12 and 8-16-32
    assert [[y for _, y in side] for side in drawn(widths)] == [[23, 16, 12], [18, 14, 22]]
    bars = widths.containers[0].lines[2][0].get_segments()
    half = math.sqrt(2) * 7  # of 30 and 16
    assert bars[0][:, 1].tolist() == pytest.approx([23 - half, 23 + half])
    assert [sum(y for _, y in side) for side in drawn(shares)] == pytest.approx([100, 100])


def test_depths_are_shown_where_they_differ() -> None:
    figure = best_against_worst(planted_group(stage_changes("depths")))
    assert [axes.get_ylabel() for axes in figure.axes][1:] == [
        "Share of the stages' parameters (%)",
        "Width (channels)",
        "Depth (blocks)",
    ]


def test_pairs_are_means_with_both_intervals() -> None:
    axes = new_figure(3, 3).add_subplot()
    specs = divisions()[:2]
    accuracies = dict(zip(spread(specs), ([60.0, 62.0, 64.0], [70.0, 70.0, 76.0]), strict=True))
    draw_scatter(axes, group_of(frame(rows(specs, accuracies))), "lipschitz", "worst_case_acc", "x", "y")
    assert drawn(axes) == [[(38, 62), (28, 72)]]
    across, up = (bars.get_segments()[0] for bars in axes.containers[0].lines[2])
    # the differences 10, 8, 12 have the variance 4, a run half of it; t(2, 0.95) = 4.302653
    half = 4.302653 * math.sqrt(2 / 3)
    assert across[:, 0].tolist() == pytest.approx([38 - half, 38 + half], abs=1e-5)
    assert up[:, 1].tolist() == pytest.approx([62 - half, 62 + half], abs=1e-5)


def test_the_rank_correlation_of_the_title_by_hand() -> None:
    specs = divisions()[:4]
    names = ["wrn_16_half", *(f"wide_resnet-d2-2-2-w{widths}" for widths in ("28-12-12", "12-28-12", "20-20-20"))]
    planted = frame(rows(specs, dict(zip(names, ([50.0], [60.0], [70.0], [80.0]), strict=True))))
    for name, value in zip(names, (4.0, 3.0, 1.0, 2.0), strict=True):
        planted.loc[planted["arch"] == name, "lipschitz"] = value
    found = networks(group_of(planted), ("worst_case_acc", "lipschitz"))
    # ranks 1 2 3 4 against 4 3 1 2: of six pairs one agrees; four networks are too few for an interval
    assert rank_title(found, "worst_case_acc", "lipschitz") == r"Kendall's $\tau$ = -0.67, 4 networks"


def test_best_is_the_first_epoch_with_most_robust_images(runs: pd.DataFrame) -> None:
    found = curves(runs, epochs())
    assert [(curve.seed, curve.best, curve.drops) for curve in found] == [(seed, 2, [3, 4]) for seed in range(3)]
    assert [curve.test for curve in found] == [(60, 59), (62, 61), (64, 63)]
    left, right = training_curves(runs, epochs()).axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in left.lines}
    assert lines["held-out images, seed 1"] == [[1, 20], [2, 40], [3, 50], [4, 50], [5, 30]]
    assert [lines[f"best, seed {seed}"] for seed in range(3)] == [[[3, 50]]] * 3
    assert [lines[f"last, seed {seed}"] for seed in range(3)] == [[[5, 30]]] * 3
    assert [[y for _, y in run] for run in drawn(right)] == [[60, 59], [62, 61], [64, 63]]


def test_both_panels_code_seeds_and_checkpoints_alike(runs: pd.DataFrame) -> None:
    left, right = training_curves(runs, epochs()).axes
    code = {str(line.get_label()): (line.get_marker(), line.get_markerfacecolor()) for line in left.lines}
    seeds = [[code[f"{name}, seed {seed}"] for name in ("best", "last")] for seed in range(3)]
    # test accuracies planted for the seeds, at best and one point lower at last
    points = {line.get_xydata()[0][1]: line for line in right.lines if len(line.get_xdata()) == 1}
    there = [[points[value], points[value - 1]] for value in (60, 62, 64)]
    assert [[(line.get_marker(), line.get_markerfacecolor()) for line in pair] for pair in there] == seeds
    assert len({best[0] for best, _ in seeds}) == 3
    assert len({face for pair in seeds for _, face in pair}) == 2
    styles = {line.get_label(): line.get_linestyle() for line in left.lines}
    assert len({styles[f"held-out images, seed {seed}"] for seed in range(3)}) == 3


def test_curves_without_one_robust_image_are_drawn_too(runs: pd.DataFrame) -> None:
    assert "; 120 held-out images, 360 test images" in training_curves(runs, epochs()).get_suptitle()
    lost = epochs()
    lost.loc[lost["run_id"] == "wrn_16_half-0", ["val_robust_acc", "val_robust_count"]] = 0.0
    assert [curve.held_out_images for curve in curves(runs, lost)] == [None, 120, 120]
    assert "; 120 held-out images" in training_curves(runs, lost).get_suptitle()
    lost[["val_robust_acc", "val_robust_count"]] = 0.0
    assert "; held-out images, 360 test images" in training_curves(runs, lost).get_suptitle()


def test_curves_of_runs_that_differ_are_refused() -> None:
    specs = divisions()[:2]
    with pytest.raises(InputError, match="one kind"):
        curves(frame(rows(specs, spread(specs))), epochs())
    one = frame(rows(specs[:1], spread(specs)))
    with pytest.raises(InputError, match="one kind"):
        curves(one[one["checkpoint"] == "best"], epochs())
    with pytest.raises(InputError, match="seed 2"):
        curves(one, epochs().query("run_id != 'wrn_16_half-2'"))


def test_captions_describe_the_numbers() -> None:
    specs = divisions()[:2]
    accuracies = dict(zip(spread(specs), ([60.0, 62.0, 64.0], [70.0, 70.0, 76.0]), strict=True))
    found = pooled(group_of(frame(rows(specs, accuracies))))
    assert conditions(found).splitlines() == [
        r"digits, $\ell_\infty$ $\epsilon$=0.2, worst case over FGSM, PGD-20, CW-40",
        "n = 360 test images, 3 seeds (small dots), 95% intervals from a pooled sd of 1.4 points",
    ]
    # half width t(2, 0.95) sqrt(2 / 3) = 3.513
    assert conditions_without_bars(found).endswith("images, 3 seeds, 95% interval $\\pm$3.5")
    assert (attack_text("gama100"), attack_text("autoattack"), attack_text("mine")) == (
        "GAMA-100",
        "AutoAttack",
        "mine",
    )
    assert threat_text("l2-0.5") == r"$\ell_2$ $\epsilon$=0.5"


def test_files_are_the_same_each_time_and_fonts_are_inside(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        save(on_simplex(planted_group(divisions()), {}), tmp_path / folder)
    for name in ("figure.pdf", "figure.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    pdf = (tmp_path / "a" / "figure.pdf").read_bytes()
    assert b"/FontFile2" in pdf  # TrueType, embedded
    assert b"/Type3" not in pdf
    assert b"CreationDate" not in pdf
    width = int.from_bytes((tmp_path / "a" / "figure.png").read_bytes()[16:20], "big")
    assert width == 990  # 3.3 inches at 300 dots


def test_a_label_is_nearest_to_its_own_mark() -> None:
    axes = new_figure(3, 3).add_subplot()
    marks = [Mark(x, 0.5, 0.5, 0.5, text) for x, text in ((0.4, "left"), (0.42, "middle"), (0.44, "right"), (0.9, ""))]
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    write_labels(axes, marks)
    places = axes.transData.transform([(mark.x, mark.y) for mark in marks])
    for text in axes.texts:
        box = text.get_window_extent()
        gaps = [math.hypot(max(box.x0 - x, 0, x - box.x1), max(box.y0 - y, 0, y - box.y1)) for x, y in places]
        assert marks[gaps.index(min(gaps))].label == text.get_text()
    assert {"left", "right"} <= {text.get_text() for text in axes.texts}


def test_a_label_that_could_be_anothers_has_a_line_to_its_mark() -> None:
    axes = new_figure(3, 3).add_subplot()
    diagonal = [Mark(0.4 + step / 40, 0.4 + step / 40, 0.4, 0.4, f"network {step}") for step in range(4)]
    marks = [*(Mark(mark.x, mark.y, mark.y, mark.y, mark.label) for mark in diagonal), Mark(0.1, 0.9, 0.9, 0.9, "far")]
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    write_labels(axes, marks, fontsize=6, leaders=True)
    written = {text.get_text(): text for text in axes.texts}
    assert written.keys() == {mark.label for mark in marks}
    assert written["far"].arrow_patch is None
    for mark in marks[1:3]:  # both neighbours are as near as a label can be
        assert written[mark.label].xy == (mark.x, mark.y)
        assert written[mark.label].arrow_patch is not None
