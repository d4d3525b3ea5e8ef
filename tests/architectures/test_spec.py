from dataclasses import FrozenInstanceError

import pytest

from robust_arch.architectures import ArchSpec
from robust_arch.errors import InputError

VALID = {"family": "wide_resnet", "depths": (5, 5, 5), "widths": (320, 640, 512)}


def test_a_spec_cannot_be_changed():
    spec = ArchSpec(**VALID)
    with pytest.raises(FrozenInstanceError):
        spec.depths = (1, 1, 1)


def test_lists_and_tuples_make_the_same_spec():
    from_lists = ArchSpec(family="wide_resnet", depths=[5, 5, 5], widths=[320, 640, 512])
    assert from_lists == ArchSpec(**VALID)
    assert len({from_lists, ArchSpec(**VALID)}) == 1


def test_json_is_the_text_that_records_hold():
    text = (
        '{"activation": "relu", "depths": [5, 5, 5], "dropout": 0.0, "family": "wide_resnet", '
        '"stem_width": 16, "widths": [320, 640, 512]}'
    )
    assert ArchSpec(**VALID).to_json() == text
    assert ArchSpec.from_json(text) == ArchSpec(**VALID)


def test_json_round_trip_keeps_every_field():
    spec = ArchSpec("wide_resnet", (1, 2, 3), (8, 9, 10), stem_width=7, activation="gelu", dropout=0.1)
    assert ArchSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("depths", (5, 0, 5), "at least 1"),
        ("depths", (5, -1, 5), "at least 1"),
        ("depths", (5, True, 5), "integer"),
        ("depths", (5, 2.0, 5), "integer"),
        ("depths", (5, "2", 5), "integer"),
        ("depths", 5, "list of integers"),
        ("depths", None, "list of integers"),
        ("widths", (320, 0, 512), "at least 1"),
        ("widths", (320, False, 512), "integer"),
        ("widths", (320, 640), "as many stages as arch.depths = (5, 5, 5)"),
        ("widths", "abc", "integer"),
        ("stem_width", 0, "at least 1"),
        ("family", "wide_restnet", "wide_resnet"),
        ("activation", "swish", "relu, silu, gelu, softplus"),
        ("dropout", 1.0, "[0, 1)"),
        ("dropout", -0.1, "[0, 1)"),
        ("dropout", "0.1", "[0, 1)"),
        ("dropout", float("nan"), "[0, 1)"),
    ],
)
def test_bad_input_names_key_value_and_what_is_allowed(key, value, allowed):
    with pytest.raises(InputError) as caught:
        ArchSpec(**VALID | {key: value})
    message = str(caught.value)
    assert message.startswith(f"arch.{key} = ")
    given = value[1] if isinstance(value, tuple) else value
    assert repr(given) in message
    assert allowed in message


def test_four_stages_are_not_a_wide_resnet():
    with pytest.raises(InputError, match=r"arch\.depths = \(2, 2, 2, 2\): .* 3 stages"):
        ArchSpec("wide_resnet", (2, 2, 2, 2), (16, 32, 64, 128))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({**VALID, "width": 3}, r"arch\.width: unknown key; did you mean widths"),
        ({"family": "wide_resnet", "depths": [1, 1, 1]}, "widths"),
    ],
)
def test_unknown_and_missing_fields_are_named(values, message):
    with pytest.raises(InputError, match=message):
        ArchSpec.from_dict(values)
