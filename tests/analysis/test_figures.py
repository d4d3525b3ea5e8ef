"""What is drawn equals what is recorded, and nothing is drawn that may not be compared."""

from collections.abc import Callable

import pandas as pd
import pytest
from matplotlib.axes import Axes

from robust_arch.analysis.groups import main_group
from robust_arch.analysis.report.figures import png, robust_against_last_share, robust_against_params
from robust_arch.common.statistics import wilson_interval
from robust_arch.errors import InputError

Rows = Callable[..., pd.DataFrame]
Shares = dict[str, tuple[float, ...]]


@pytest.fixture
def main_rows(planted: pd.DataFrame) -> pd.DataFrame:
    group = main_group(planted)
    assert group is not None
    return group.rows


def _drawn(axes: Axes) -> list[tuple[float, float]]:
    return [tuple(point) for container in axes.containers for point in container.lines[0].get_xydata().tolist()]


def _bars(axes: Axes) -> list[tuple[float, float]]:
    segments = [bars for container in axes.containers for bars in container.lines[2][0].get_segments()]
    return [(float(bottom[1]), float(top[1])) for bottom, top in segments]


def test_points_against_the_last_share(main_rows: pd.DataFrame, shares: Shares) -> None:
    axes = robust_against_last_share(main_rows, shares).axes[0]
    assert _drawn(axes) == [(70.0, 50.0), (60.0, 55.0), (40.0, 60.0), (50.0, 52.5)]
    assert "(%)" in axes.get_xlabel()
    assert "(%)" in axes.get_ylabel()
    del shares["b"]  # a run without a recorded share is not drawn
    assert len(_drawn(robust_against_last_share(main_rows, shares).axes[0])) == 3


def test_error_bars_of_single_runs_are_wilson(main_rows: pd.DataFrame) -> None:
    expected = [wilson_interval(successes, 360) for successes in (180, 198, 216, 189)]
    bars = _bars(robust_against_params(main_rows).axes[0])
    assert bars == [pytest.approx((100 * low, 100 * high)) for low, high in expected]


@pytest.mark.parametrize(("factor", "unit"), [(1, "thousands"), (1000, "millions")])
def test_parameters_carry_their_unit(main_rows: pd.DataFrame, factor: int, unit: str) -> None:
    axes = robust_against_params(main_rows.assign(params=main_rows["params"] * factor)).axes[0]
    assert [x for x, _ in _drawn(axes)] == [58.0, 59.0, 60.0, 61.0]
    assert unit in axes.get_xlabel()


def test_several_seeds_become_a_mean_with_a_t_interval(rows: Rows) -> None:
    runs = [{"run_id": f"r{seed}", "seed": seed, "worst_case_acc": 50.0 + 2 * seed} for seed in range(3)]
    axes = robust_against_params(rows(*runs)).axes[0]
    assert _drawn(axes) == [(60.0, 52.0)]
    assert _bars(axes) == [pytest.approx((52 - 4.968275, 52 + 4.968275), abs=1e-5)]


def test_both_kinds_of_interval_are_named_when_both_are_drawn(rows: Rows) -> None:
    frame = rows({"run_id": "x", "seed": 0}, {"run_id": "y", "seed": 1}, {"run_id": "z", "arch": "other"})
    (legend,) = robust_against_params(frame).legends
    assert ["Wilson" in text.get_text() for text in legend.get_texts()] == [True, False]


def test_many_points_have_no_bars_and_the_title_has_their_median_width(rows: Rows) -> None:
    runs = [{"run_id": f"{i:03}", "arch": f"net{i}", "params": 60_000 + i} for i in range(61)]
    axes = robust_against_params(rows(*runs)).axes[0]
    assert len(_drawn(axes)) == 61
    assert not any(container.has_yerr for container in axes.containers)
    low, high = wilson_interval(189, 360)  # 52.5%
    assert f"±{50 * (high - low):.1f} points in the median" in axes.get_title(loc="left")
    assert len(_bars(robust_against_params(rows(*runs[:60])).axes[0])) == 60


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("n_test", 50), ("threat", "linf-0.1"), ("recipe", "other"), ("checkpoint", "last"), ("weights", "ema")),
        ("autoattack_acc", 50.0),
    ],
)
def test_rows_that_may_not_be_compared_are_refused(rows: Rows, column: str, value: object) -> None:
    frame = rows({"run_id": "x"}, {"run_id": "y", "arch": "other", column: value})
    with pytest.raises(InputError, match="2 groups"):
        robust_against_params(frame)


def test_rows_without_numbers_are_refused(planted: pd.DataFrame) -> None:
    for status in ("diverged", "failed"):
        with pytest.raises(InputError):
            robust_against_params(planted[planted["run_id"] == "e"].assign(status=status))


def test_labels_never_cover_one_another(rows: Rows) -> None:
    crowd = [{"run_id": f"r{i}", "arch": f"n{i}", "worst_case_acc": 50 + i % 3} for i in range(40)]
    figure = robust_against_params(rows(*crowd), {f"n{i}": str(i) for i in range(40)})
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert 0 < len(boxes) < 40
    assert not any(box.count_overlaps(boxes[:position]) for position, box in enumerate(boxes))


def test_labels_are_at_their_points(main_rows: pd.DataFrame) -> None:
    axes = robust_against_params(main_rows, {"net-a": "1", "net-c": "$3"}).axes[0]
    assert {text.get_text(): text.xy for text in axes.texts} == {"1": (58.0, 50.0), "$3": (60.0, 60.0)}


def test_png_is_twice_640_pixels_wide(main_rows: pd.DataFrame) -> None:
    data = png(robust_against_params(main_rows))
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(data[16:20], "big") == 1280
