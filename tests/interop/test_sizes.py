"""Files that claim networks far larger than their weights: one error, and no memory taken."""

import json
import os
import resource
from pathlib import Path

import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file
from variants import WIDE

from robust_arch.architectures import ArchSpec, build
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


@pytest.fixture(scope="module")
def files(saved, tmp_path_factory):
    """One network in every form that has a card."""
    folder = tmp_path_factory.mktemp("files")
    source, _ = saved("wide_resnet")
    for form in ("safetensors", "onnx"):
        export_checkpoint(source, folder / form, form)
    return {"own": source, "safetensors": folder / "safetensors", "onnx": folder / "onnx"}


def card_of(own):
    return torch.load(own, weights_only=True)["card"]


def write(kind, files, out, card):
    """The file of a kind with another card and the same weights."""
    if kind == "own":
        torch.save({**torch.load(files["own"], weights_only=True), "card": card}, out)
    elif kind == "safetensors":
        save_file(load_file(files["safetensors"]), out, metadata={"robust_arch": json.dumps(card)})
    else:
        model = onnx.load(files["onnx"])
        onnx.helper.set_model_props(model, {"robust_arch": json.dumps(card)})
        out.write_bytes(model.SerializeToString())


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
@pytest.mark.parametrize("kind", ["own", "safetensors", "onnx"])
def test_what_a_card_claims_is_held_against_the_weights(kind, claim, files, tmp_path, little_memory):
    write(kind, files, tmp_path / "file", with_claim(card_of(files["own"]), *CLAIMS[claim]))
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
def test_a_card_of_other_types_is_one_error(place, files, tmp_path, little_memory):
    key, value = VALUES[place]
    write("own", files, tmp_path / "file", with_claim(card_of(files["own"]), key, value))
    with pytest.raises(InputError) as raised:
        open_checkpoint(tmp_path / "file")
    assert len(str(raised.value)) < 2000


@pytest.mark.parametrize("key", ["arch", "num_classes", "image_shape"])
@pytest.mark.parametrize("kind", ["own", "safetensors", "onnx"])
def test_a_card_without_an_entry_is_one_error(kind, key, files, tmp_path):
    card = card_of(files["own"])
    del card[key]
    write(kind, files, tmp_path / "file", card)
    with pytest.raises(InputError, match="card"):
        open_checkpoint(tmp_path / "file")


def test_keys_of_other_types_are_one_error(files, tmp_path):
    content = torch.load(files["own"], weights_only=True)
    torch.save({**content, "card": {**content["card"], 1: 2}}, tmp_path / "odd card")
    export_checkpoint(
        tmp_path / "odd card", tmp_path / "exported", "safetensors"
    )  # what JSON has no form for is left out
    assert open_checkpoint(tmp_path / "exported").spec == WIDE
    torch.save({**content, "state_dict": {1: torch.ones(1), **content["state_dict"]}}, tmp_path / "odd weights")
    assert open_checkpoint(tmp_path / "odd weights").spec == WIDE  # as all that is not of the network


def test_one_number_that_is_repeated_is_one_number(files, tmp_path, little_memory):
    # a view of one number can have any shape, and torch saves the number alone
    content = torch.load(files["own"], weights_only=True)
    spec = ArchSpec(**{**WIDE.to_dict(), "widths": [8, 6, 10**6]})
    card = {**content["card"], "arch": spec.to_dict()}
    with torch.device("meta"):
        shapes = {f"net.{key}": value.shape for key, value in build(WIDE, 10, (3, 16, 16)).state_dict().items()}
    views = {
        key: torch.zeros(()).expand(10**6, *shape[1:]) if shape else torch.zeros(()) for key, shape in shapes.items()
    }
    torch.save({"card": card, "state_dict": views}, tmp_path / "file")
    assert (tmp_path / "file").stat().st_size < 100_000
    with pytest.raises(InputError, match=r"the weights are not of the architecture"):
        open_checkpoint(tmp_path / "file")


def test_a_published_file_of_repeated_numbers(little_memory):
    weights = {
        "stem_conv.weight": torch.zeros(()).expand(4, 3, 3, 3),
        "fc.weight": torch.zeros(()).expand(10**8, 10),
        "fc.bias": torch.zeros(()).expand(10**8),
    }
    with pytest.raises(InputError, match=r"the weights are not of the architecture .* 100000000 classes"):
        load_published(weights, WIDE)


@pytest.mark.parametrize("depths", [(10**6, 1, 1), (10**9, 1, 1)])
def test_the_depth_of_a_published_file_is_no_work(depths, saved, tmp_path, little_memory):
    source, _ = saved("wide_resnet")
    export_checkpoint(source, tmp_path / "file", "published")
    with pytest.raises(InputError, match=r"the weights are not of the architecture"):
        load_published(tmp_path / "file", ArchSpec("wide_resnet", depths, WIDE.widths, stem_width=WIDE.stem_width))


def test_what_is_nearly_right_is_told_key_by_key(files, tmp_path):
    write("own", files, tmp_path / "file", with_claim(card_of(files["own"]), "depths", [1, 3, 1]))
    with pytest.raises(InputError, match=r"missing key 'net\.network\.stages\.1\.2\.bn1\.weight'"):
        open_checkpoint(tmp_path / "file")
