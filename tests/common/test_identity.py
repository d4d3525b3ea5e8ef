import functools
import json
from dataclasses import dataclass, field
from fractions import Fraction

import pytest

from robust_arch.architectures import ArchSpec
from robust_arch.attacks import PGD, Margin, ThreatModel
from robust_arch.common.identity import describe, short_hash


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1


class Plain:
    def __init__(self):
        self.steps, self.rel = 10, 0.25


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner = field(default_factory=Inner)
    factor: int = 2


def build(*positional, **named):
    """Something that a configuration gives only some arguments of."""


def other(*positional, **named):
    """Another one."""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (3, 3),
        (1.0, 1),
        (0.1, 0.1),
        (-2.0, -2),
        ("text", "text"),
        (Fraction(8, 255), "8/255"),
        (Fraction(16, 510), "8/255"),
        ((1, (2.0, "a")), [1, [2, "a"]]),
        ({"b": (1,), 2: None}, {"b": [1], "2": None}),
        (Outer("a"), {"class": "Outer", "name": "a", "inner": {"class": "Inner", "rate": 0.1}, "factor": 2}),
        (Plain(), {"class": "Plain", "steps": 10, "rel": 0.25}),
        # defaults are part of it: written out or left out, it is the same question
        (
            PGD(steps=20, rel_step_size=0.1),
            {"class": "PGD", "steps": 20, "rel_step_size": 0.1, "start": {"class": "Uniform"},
             "loss": {"class": "CrossEntropy"}, "drops": [], "restarts": 1},
        ),
        (ThreatModel("linf", "8/255"), {"class": "ThreatModel", "norm": "linf", "eps_fraction": "8/255"}),
        (
            functools.partial(build, lr=0.1, inner=Inner(2.0)),
            {"class": "build", "lr": 0.1, "inner": {"class": "Inner", "rate": 2}},
        ),
    ],
)  # fmt: skip
def test_descriptions(value, expected):
    described = describe(value)
    assert described == expected
    # 1 == 1.0 == True in Python, but not in JSON
    assert json.dumps(described) == json.dumps(expected)


def hashed(value):
    return short_hash(describe(value))


DIFFERENT = {
    "a field": (PGD(steps=20, rel_step_size=0.1), PGD(steps=10, rel_step_size=0.1)),
    "a part": (PGD(steps=20, rel_step_size=0.1), PGD(steps=20, rel_step_size=0.1, loss=Margin())),
    "a fraction": (ThreatModel("linf", "8/255"), ThreatModel("linf", "0.031")),
    "an order": (ArchSpec("wide_resnet", (1, 2, 1), (4, 4, 4)), ArchSpec("wide_resnet", (2, 1, 1), (4, 4, 4))),
    "an argument": (functools.partial(build, lr=0.1), functools.partial(build, lr=0.2)),
    "an argument without a name": (functools.partial(build, 1), functools.partial(build, 2)),
    "what is called": (functools.partial(build, lr=0.1), functools.partial(other, lr=0.1)),
    "a function": (build, other),
    "a list": ([1, 2], [2, 1]),
    "text and number": ("1", 1),
    "truth and number": (True, 1),
    "nothing and 0": (None, 0),
}


@pytest.mark.parametrize(("first", "second"), DIFFERENT.values(), ids=DIFFERENT)
def test_different_questions_have_different_hashes(first, second):
    assert hashed(first) != hashed(second)


@pytest.mark.parametrize(
    "ways",
    [
        [ThreatModel("linf", radius) for radius in ("0.2", "51/255", 0.2)],
        # YAML writes either: weight_decay: 0 and 0.0, gamma: 1 and 1.0
        [{"gamma": 1.0, "decay": 0}, {"gamma": 1, "decay": -0.0}],
        # the order of keys does not matter
        [{"a": 1, "b": {"c": 2, "d": [3, 4]}}, {"b": {"d": [3, 4], "c": 2}, "a": 1}],
        # code may move to another module
        [Inner(), dataclass(type("Inner", (), {"__annotations__": {"rate": float}, "__module__": "elsewhere"}))(0.1)],
    ],
    ids=["radius", "integer and float", "order", "module"],
)
def test_one_question_written_in_different_ways_has_one_hash(ways):
    assert len(set(map(hashed, ways))) == 1


def test_defaults_may_be_left_out_so_that_a_later_field_changes_nothing():
    assert describe(Outer("a"), defaults=False) == {"class": "Outer", "name": "a"}
    changed = Outer("a", inner=Inner(0.2), factor=3)
    expected = {"class": "Outer", "name": "a", "inner": {"class": "Inner", "rate": 0.2}, "factor": 3}
    assert describe(changed, defaults=False) == expected


def test_the_hash_is_that_of_the_canonical_text():
    """A changed hash would orphan every run that is recorded."""
    # printf '%s' '{"a":[1,0.1,"\u03b5",null,true],"b":{}}' | sha256sum
    assert short_hash({"b": {}, "a": [1, 0.1, "ε", None, True]}) == "e4c4d1b4c5cb"
    # printf '%s' '{}' | sha256sum
    assert short_hash({}) == "44136fa355b3"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_has_no_hash(value):
    with pytest.raises(ValueError, match="JSON"):
        short_hash(describe({"rate": value}))
