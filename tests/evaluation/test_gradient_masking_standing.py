"""The Square check judges the images that still stand, besides all images."""

import pytest

from robust_arch.evaluation.gradient_masking import _count, _judge_square


@pytest.mark.parametrize(
    ("broken", "standing", "ok"),
    [(6, 11, False), (3, 3, False), (1, 3, True), (2, 2, True), (1, 1, True), (3, 60, True), (0, 0, True)],
)
def test_few_standing_images(broken, standing, ok):
    verdict = _judge_square({"queries": 1000, "broken": _count(broken, 200), "white_box": _count(standing, 200)})
    assert verdict["ok"] == ok
    assert ("nothing to judge" in verdict["text"]) == (standing == 0)
