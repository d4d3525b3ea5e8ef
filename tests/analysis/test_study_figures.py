"""Figures of any study: which ones its rows call for, pooled intervals, seeds as dots, far points, embedding."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from planted_studies import BASE, divisions, epochs, frame, rows, spread, stage_changes, wide

from robust_arch import cli
from robust_arch.analysis.groups import Group, main_group
from robust_arch.analysis.plots.marks import Mark, error_bars
from robust_arch.analysis.plots.of_study import figures_at, figures_of
from robust_arch.analysis.plots.outliers import Extent, set_aside
from robust_arch.analysis.plots.pairs import smaller_last_stage
from robust_arch.analysis.plots.pooled import Pooled, pooled
from robust_arch.analysis.plots.simplex import on_simplex
from robust_arch.analysis.plots.style import new_figure
from robust_arch.architectures import ArchSpec
from robust_arch.common.statistics import wilson_interval
from robust_arch.errors import InputError

LAST_STAGE = [wide((2, 2, 2), widths) for widths in ((8, 16, 32), (8, 16, 16), (8, 16, 8))]
SCALED = [wide((2, 2, 2), [factor * width for width in BASE[1]]) for factor in (1, 2, 4)]
RESNETS = [ArchSpec("resnet", (1, 1, 1, 1), (8 * factor, 16, 16, 32)) for factor in (1, 2, 4)]
NOISY = ([60.0, 62.0, 64.0], [70.0, 70.0, 76.0])
# two-way analysis of variance: the differences 10, 8, 12 have the variance 4, a run half of it; t(2, 0.95) = 4.302653
HALF = 4.302653 * math.sqrt(2 / 3)


def group_of(specs: Sequence[ArchSpec], accuracies: Sequence[Sequence[float]]) -> Group:
    found = main_group(frame(rows(specs, dict(zip(spread(specs), accuracies, strict=True)))))
    assert found is not None
    return found


def planted(specs: Sequence[ArchSpec], accuracies: Mapping[str, Sequence[float]] | None = None) -> pd.DataFrame:
    return frame(rows(specs, accuracies or spread(specs)))


@pytest.fixture
def noisy() -> Pooled:
    """Two networks of three seeds each."""
    return pooled(group_of(divisions()[:2], NOISY))


def test_intervals_rest_on_the_scatter_of_all_networks(noisy: Pooled) -> None:
    assert noisy.sigma == {"wide_resnet": pytest.approx(math.sqrt(2))}
    bounds = [(each.low, each.high) for each in noisy]
    assert bounds == [pytest.approx((mean - HALF, mean + HALF), abs=1e-5) for mean in (62, 72)]
    assert [each.runs for each in noisy] == [(60, 62, 64), (70, 70, 76)]
    assert "1.41 points (2 degrees of freedom)" in noisy.sentences()


def test_each_family_has_its_own_deviation() -> None:
    found = pooled(group_of([*divisions()[:2], *RESNETS[:2]], [*NOISY, [50, 50, 50], [60, 60.0, 66.0]]))
    # resnets: the differences 10, 10, 16 have the variance 12
    assert found.sigma == {"wide_resnet": pytest.approx(math.sqrt(2)), "resnet": pytest.approx(math.sqrt(6))}
    assert found.interval == "95% intervals from a pooled sd of 1.4 to 2.4 points"


def test_one_seed_has_wilsons_interval() -> None:
    found = pooled(group_of(divisions()[:2], ([50.0], [60.0])))
    assert (found.sigma, found.seeds) == ({}, "1 seed")
    assert [each.low for each in found] == [pytest.approx(100 * wilson_interval(n, 360)[0]) for n in (180, 216)]
    assert "Wilson" in found.sentences()


def test_equal_networks_span_the_studentised_range_by_chance(noisy: Pooled) -> None:
    # upper 5% point of the Studentised range of 2 means with 2 degrees of freedom: 6.085
    assert noisy.by_chance() == pytest.approx(6.085 * math.sqrt(2 / 3), rel=0.05)
    # of one seed: 2.772 (2 means, known deviation) times the binomial deviation of 55% on 360 images
    alone = pooled(group_of(divisions()[:2], ([50.0], [60.0])))
    assert alone.by_chance() == pytest.approx(2.772 * 100 * math.sqrt(0.55 * 0.45 / 360), rel=0.05)


def test_the_colours_span_what_noise_alone_would() -> None:
    group = group_of(divisions()[:3], ([60.0, 70.0], [70.0, 60.0], [65.0, 65.2]))
    found = pooled(group)
    (dots,) = on_simplex(group, {}).axes[0].collections
    low, high = dots.get_clim()
    assert low < min(each.low for each in found) + 1e-9
    assert high - low >= found.by_chance() > 20 * found.span


def test_runs_are_dots_beside_their_mean() -> None:
    axes = new_figure(3, 3).add_subplot()
    error_bars(axes, [Mark(1, 62, 60, 64, runs=(60, 62, 64)), Mark(2, 50, 49, 51, runs=(50,))], "blue", "o")
    dots = axes.collections[0]
    assert dots.get_offsets().tolist() == [[1, 60], [1, 62], [1, 64]]  # one run is its own mean
    axes.figure.draw_without_rendering()
    (at,), (mean,) = dots.get_offset_transform().transform([(1, 62)]), axes.transData.transform([(1, 62)])
    assert at[0] < mean[0]
    assert at[1] == pytest.approx(mean[1])


@pytest.mark.parametrize(("last", "texts"), [(20.0, ["20.0"]), (59.0, [])])
def test_one_far_point_does_not_set_the_axes(last: float, texts: list[str]) -> None:
    axes = new_figure(3, 3).add_subplot()
    marks = [Mark(x, y, y - 1, y + 1) for x, y in enumerate([60.0, 61, 62, 63, 64, 65, 66, 67, last])]
    error_bars(axes, marks, "blue", "o")
    set_aside(axes, Extent.at([mark.x for mark in marks]), Extent.of(marks))
    assert [text.get_text() for text in axes.texts] == texts
    assert 55 < axes.get_ylim()[0] < 60


def test_pairs_are_differences_with_the_interval_of_the_claims() -> None:
    figure = smaller_last_stage(group_of(LAST_STAGE[:2], NOISY))
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "8-16-32 \N{RIGHTWARDS ARROW} 8-16-16",
        "mean of 1 pair",
    ]
    for bars in axes.containers:
        assert bars.lines[0].get_xdata()[0] == pytest.approx(10)
        (bar,) = bars.lines[2][0].get_segments()
        assert bar[:, 0].tolist() == pytest.approx([10 - math.sqrt(2) * HALF, 10 + math.sqrt(2) * HALF], abs=1e-5)
    (dots,) = (each for each in axes.collections if len(each.get_offsets()) == 3)
    assert dots.get_offsets()[:, 0].tolist() == [10, 8, 12]


@pytest.mark.parametrize(
    ("specs", "names"),
    [
        (stage_changes("widths"), ["stage_width", "cost"]),
        (stage_changes("depths"), ["stage_depth", "cost"]),
        (LAST_STAGE, ["last_stage", "cost"]),
        (SCALED, ["cost"]),
        ([*SCALED, *RESNETS], ["cost"]),
        ([wide(*BASE)], ["clean_robust"]),
    ],
)
def test_the_rows_decide_which_figures_are_drawn(specs: list[ArchSpec], names: list[str]) -> None:
    found = figures_of(planted(specs))
    assert [figure.name for figure in found] == names
    for figure in found:
        for words in ("data digits", "360 test images", "3 seeds", "95% intervals"):
            assert words in figure.caption
        assert "$" not in figure.title + figure.caption


def test_divisions_of_a_budget_are_on_the_simplex_and_by_share() -> None:
    specs = [wide((2, 2, 2), widths) for widths in ((8, 16, 32), (28, 12, 12), (16, 24, 16), (12, 12, 30))]
    table = planted(specs).assign(params=45_000)  # of one budget, whatever these cost
    assert [figure.name for figure in figures_of(table)][:2] == ["simplex", "stage_shares"]
    shares = figures_of(table)[1]
    assert [axes.get_xlabel() for axes in shares.figure.axes] == [
        "Share of stage 1 (%)",
        "Share of stage 2 (%)",
        "Share of the last stage (%)",
    ]
    assert "would span up to" in shares.caption


def test_families_have_marks_of_their_own() -> None:
    (cost,) = figures_of(planted([*SCALED, *RESNETS]))
    labels = [text.get_text() for text in cost.figure.legends[0].get_texts()]
    assert labels[-2:] == ["wide resnet", "resnet"]


def test_the_last_epoch_is_drawn_beside_the_best_where_the_same_runs_have_both() -> None:
    both = planted(SCALED)
    (cost,) = figures_of(both)
    at_best, at_last = (bars.lines[0].get_ydata() for bars in cost.figure.axes[0].containers)
    assert list(at_last) == pytest.approx([value - 1 for value in at_best])
    labels = [text.get_text() for text in cost.figure.legends[0].get_texts()]
    assert labels == ["best epoch, chosen on held-out images", "last epoch"]
    assert "Both checkpoints of the same runs" in cost.caption
    (alone,) = figures_of(both.iloc[:-1])  # a run without last
    assert "Both checkpoints" not in alone.caption


def test_epochs_add_training_curves() -> None:
    found = figures_of(planted([wide(*BASE)]), epochs())
    assert [figure.name for figure in found] == ["training_curves"]
    assert "Wilson 95% intervals" in found[0].caption


def test_each_setting_of_a_study_is_drawn() -> None:
    both = pd.concat([planted(SCALED), planted(SCALED).assign(objective="trades")])
    assert [figure.name for figure in figures_of(both)] == ["cost-sat", "cost-trades"]


def test_an_svg_is_an_element_for_a_light_or_a_dark_page() -> None:
    (figure,) = figures_of(planted(SCALED))
    text = figure.svg()
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("svg")
    assert (root.get("fill"), root.get("aria-label")) == ("currentColor", figure.title)
    assert "#ffffff" not in text
    assert "#000000" not in text
    ids = [each.get("id") for each in root.iter() if each.get("id")]
    assert len(set(ids)) == len(ids)
    assert all(str(each).startswith("cost-") for each in ids)
    assert not [each for each in root.iter() if each.tag.endswith("style")]


@pytest.mark.slow
def test_the_command_writes_all_kinds_of_files_the_same_each_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planted(SCALED).to_csv(tmp_path / "results.csv", index=False)
    cli.figures(str(tmp_path / "results.csv"))
    files = {path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()}
    assert set(files) == {f"cost.{kind}" for kind in ("png", "pdf", "svg", "txt")}
    told = capsys.readouterr().out
    assert all(str(tmp_path / "figures" / name) in told for name in files)
    cli.figures(str(tmp_path), into=tmp_path / "again")
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == files


def test_a_study_without_numbers_is_an_error(tmp_path: Path) -> None:
    planted(SCALED).head(1).assign(worst_case_acc=None, clean_acc=None).to_csv(tmp_path / "results.csv", index=False)
    with pytest.raises(InputError, match="no run has a worst-case accuracy"):
        figures_at(tmp_path / "results.csv")
