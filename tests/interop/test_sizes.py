"""Files that claim networks far larger than their weights: one error, and no memory taken."""

import dataclasses
import os
import resource
from pathlib import Path

import pytest
import torch
from altered import CARD_FORMS, write_with_card
from variants import WIDE

from robust_arch.errors import InputError
from robust_arch.interop import export_checkpoint, load_published, open_checkpoint

ROOM = 512 * 2**20  # bytes beyond those of this process, far below what the files claim


@pytest.fixture
def little_memory():
    """An allocation beyond ROOM fails, instead of taking the machine's memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + ROOM, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture
def card(exported):
    for form in (*CARD_FORMS, "published"):
        exported(form)  # before memory is limited
    return torch.load(exported("own"), weights_only=True)["card"]


MILLIONS = [10**6, 10**9, 10**18]
CLAIMS = {
    **{f"a stem of {n:.0e}": ("stem_width", n) for n in MILLIONS},
    **{f"a width of {n:.0e}": ("widths", [8, n, 10]) for n in MILLIONS},
    **{f"a depth of {n:.0e}": ("depths", [1, n, 1]) for n in MILLIONS},
    **{f"all widths of {n:.0e}": ("widths", [n, n, n]) for n in MILLIONS},
    **{f"{n:.0e} classes": ("num_classes", n) for n in MILLIONS},
    **{f"{n:.0e} channels": ("image_shape", [n, 16, 16]) for n in MILLIONS},
    **{f"a side of {n:.0e}": ("image_shape", [3, 16, n]) for n in MILLIONS},
    **{f"two sides of {n:.0e}": ("image_shape", [3, n, n]) for n in [10**5, *MILLIONS]},
}


def with_claim(card, key, value):
    return {**card, "arch": {**card["arch"], key: value}} if key in card["arch"] else {**card, key: value}


@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize("form", CARD_FORMS)
def test_a_card_is_checked_against_the_weights(form, claim, card, exported, tmp_path, little_memory):
    write_with_card(form, exported(form), tmp_path / "file", with_claim(card, *CLAIMS[claim]))
    with pytest.raises(InputError, match=r"the weights are not of the architecture .* the file holds|^image_shape = "):
        open_checkpoint(tmp_path / "file")


def test_memory_is_little(little_memory):
    # else the tests above would show nothing
    with pytest.raises(RuntimeError):
        torch.zeros(2 * ROOM, dtype=torch.uint8)


ODD = {
    "classes": ("num_classes", [-1, 0, 1, True, "10", 10.0, float("nan"), None, [10], 10**5000]),
    "shape": ("image_shape", [None, 3, "3x16x16", [3, 16], [3, 16, 16, 1], [3, 16.0, 16], [3, -1, 16], [True, 16, 16]]),
    "more shapes": ("image_shape", [[3, float("nan"), 16], [3, "16", 16], {"c": 3}, [3, 16, 10**5000], [0, 16, 16]]),
    "depths": ("depths", [None, 1, "121", [1, 2], [1, "2", 1], [1, True, 1], [1, 2.0, 1], [1, -2, 1], {1: 1}]),
    "more depths": ("depths", [[1, float("nan"), 1], [1, None, 1], [[1], [2], [1]], [1, 10**5000, 1], [1] * 1000, []]),
    "widths": ("widths", [None, "8", [8, 6], [8, 6.5, 10], [8, float("inf"), 10], [8, -6, 10], {8: 0, 6: 0, 10: 0}]),
    "stem": ("stem_width", [None, "4", 4.0, True, -4, 0, float("nan"), [4], 10**5000]),
    "dropout": ("dropout", [None, "0", False, True, -0.1, 1, float("nan"), [0.0], 10**5000]),
    "activation": ("activation", [None, 1, True, "tanh", ["relu"], {"relu": 1}, "__init__"]),
    "family": ("family", [None, 1, True, "os", ["wide_resnet"], "..families.resnet", "__init__", "wide_resnet\0"]),
    "arch": ("arch", [None, [], "wide_resnet", {}, {"family": "wide_resnet"}, {1: 2, "x": 3}, {"family": {}}]),
}  # fmt: skip
VALUES = [(key, value) for key, values in ODD.values() for value in values]


@pytest.mark.parametrize("place", range(len(VALUES)))
def test_a_card_of_other_types_is_one_error(place, card, exported, tmp_path, little_memory):
    write_with_card("own", exported("own"), tmp_path / "file", with_claim(card, *VALUES[place]))
    with pytest.raises(InputError) as raised:
        open_checkpoint(tmp_path / "file")
    assert len(str(raised.value)) < 2000


@pytest.mark.parametrize("key", ["arch", "num_classes", "image_shape"])
@pytest.mark.parametrize("form", ["safetensors", "onnx"])
def test_a_card_without_an_entry_is_one_error(form, key, card, exported, tmp_path):
    write_with_card(form, exported(form), tmp_path / "file", {name: card[name] for name in card if name != key})
    with pytest.raises(InputError, match="its card has no arch, num_classes and image_shape"):
        open_checkpoint(tmp_path / "file")


def test_keys_of_other_types_are_left_out(exported, tmp_path):
    content = torch.load(exported("own"), weights_only=True)
    torch.save({**content, "card": {**content["card"], 1: 2}}, tmp_path / "odd card")
    export_checkpoint(tmp_path / "odd card", tmp_path / "exported", "safetensors")
    assert open_checkpoint(tmp_path / "exported").spec == WIDE
    torch.save({**content, "state_dict": {1: torch.ones(1), **content["state_dict"]}}, tmp_path / "odd weights")
    assert open_checkpoint(tmp_path / "odd weights").spec == WIDE  # as with everything outside the network


def test_one_number_that_is_repeated_is_one_number(exported, tmp_path, little_memory):
    # a view of one number can have any shape, and torch saves the number alone
    content = torch.load(exported("own"), weights_only=True)
    content["card"]["arch"]["widths"] = [8, 6, 10**6]
    content["state_dict"] = {
        key: torch.zeros(()).expand(10**6, *value.shape[1:]) if value.ndim else torch.zeros(())
        for key, value in content["state_dict"].items()
    }
    torch.save(content, tmp_path / "file")
    assert (tmp_path / "file").stat().st_size < 100_000
    with pytest.raises(InputError, match=r"the weights are not of the architecture"):
        open_checkpoint(tmp_path / "file")


def test_a_published_file_of_repeated_numbers(little_memory):
    shapes = {"stem_conv.weight": (4, 3, 3, 3), "fc.weight": (10**8, 10), "fc.bias": (10**8,)}
    weights = {key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}
    with pytest.raises(InputError, match=r"the weights are not of the architecture .* 100000000 classes"):
        load_published(weights, WIDE)


@pytest.mark.parametrize("depth", [10**6, 10**9])
def test_the_depth_of_a_published_file_is_no_work(depth, card, exported, little_memory):
    with pytest.raises(InputError, match=r"the weights are not of the architecture"):
        load_published(exported("published"), dataclasses.replace(WIDE, depths=(depth, 1, 1)))


def test_near_misses_are_reported_key_by_key(card, exported, tmp_path):
    write_with_card("own", exported("own"), tmp_path / "file", with_claim(card, "depths", [1, 3, 1]))
    with pytest.raises(InputError, match=r"missing key 'net\.network\.stages\.1\.2\.bn1\.weight'"):
        open_checkpoint(tmp_path / "file")
