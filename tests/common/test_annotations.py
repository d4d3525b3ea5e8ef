import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from robust_arch.common.annotations import fits

FITTING = [
    (1, int), (1, float), (1.5, float | None), (None, float | None), (True, bool), ("a", int | str),
    ([1, 2], list[int]), ((1, 2), Sequence[int]), ([1, "a"], tuple[int, str]), ([1, 2, 3], tuple[int, ...]),
    ([], Sequence[int]),
    ({"linf": 0.1, "l2": "1/2"}, Mapping[str, float | str]), ({"a": [1, None]}, dict[str, list[int | None]]),
]  # fmt: skip
OTHER = [
    (True, int), (1.0, int), (1, bool), ("1", int), (math.nan, float), (2**63, int), ("${a}", str), ("a\0", str),
    ("a", Path), (1, Any), (1, object), ({}, int), ("ab", Sequence[str]), ([1, "a"], list[int]), (1, list[int]),
    ([["a"]], list[str]), ({"a": {}}, Mapping[str, float]), ({1: 1}, Mapping[str, int]), ([1], Mapping[str, int]),
    ({"a": 1}, Mapping), ([1], Sequence),
]  # fmt: skip


@pytest.mark.parametrize(("value", "annotation"), FITTING, ids=repr)
def test_plain_values_of_the_annotated_type_fit(value, annotation):
    assert fits(value, annotation)


@pytest.mark.parametrize(("value", "annotation"), OTHER, ids=repr)
def test_anything_else_does_not(value, annotation):
    assert not fits(value, annotation)


def test_whether_a_single_value_fits_is_for_the_caller_to_judge():
    def judge(value, annotation):
        return annotation is Path and isinstance(value, str)

    assert fits({"a": ["b", "c"]}, Mapping[Path, list[Path | None]], judge)
    assert not fits({"a": ["b", 1]}, Mapping[Path, list[Path | None]], judge)
