"""Checkpoints whose recorded configuration wants to run, create or write something."""

import contextlib
import copy
import functools
import itertools
import json
import os
import pickle
from pathlib import Path

import PIL.EpsImagePlugin
import PIL.Image
import pytest
import torch
from altered import Hostile, write_with_card
from composition import configuration
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from test_evaluate import SPEC, TRAINED_ON, fitted, save

from robust_arch.data.digits import Digits
from robust_arch.errors import InputError
from robust_arch.evaluate import evaluate
from robust_arch.interop import export_checkpoint

DIGITS = TRAINED_ON["data"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder for the files, with a pickle inside that makes `made`; `home` and `cache` are the user's."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "pickle").write_bytes(pickle.dumps(Hostile(folder / "made")))
    torch.save(Hostile(folder / "made"), folder / "torch.pt")
    return folder


@pytest.fixture(autouse=True)
def user(place, monkeypatch):
    """A home of the user's own, with nothing in it."""
    monkeypatch.setenv("HOME", str(place / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    monkeypatch.setenv("SECRET", "a word of the environment")


@pytest.fixture(scope="module")
def evaluated(place):
    """From a configuration or a file, and overrides, to the evaluation's record."""

    @functools.cache
    def composed(*overrides):
        few = ("evaluate.attacks=[fgsm]", "evaluate.n=20", "trainer.accelerator=cpu")
        return configuration(place, *few, *overrides, config="evaluate")

    def run(config_or_path, *overrides):
        cfg = copy.deepcopy(composed(*overrides))
        cfg.checkpoint = str(place / "file.ckpt")
        if isinstance(config_or_path, Path):
            cfg.checkpoint = str(config_or_path)
        else:
            save(place / "file.ckpt", config=config_or_path)
        return evaluate(cfg)

    return run


@pytest.fixture
def refused(evaluated, place):
    """A function that evaluates and returns the error: an InputError of one line, which leaves nothing behind."""

    def run(config_or_path, *overrides):
        (place / "file.ckpt").touch()
        before = tree(place)
        with pytest.raises(InputError) as raised:
            evaluated(config_or_path, *overrides)
        assert len(str(raised.value).splitlines()) == 1
        assert "a word of the environment" not in str(raised.value)
        assert tree(place) == before
        return str(raised.value)

    return run


def tree(folder):
    """Every path below it."""
    return sorted(str(path) for path in folder.rglob("*"))


def calls(place):
    """What a configuration would call, were it instantiated: each leaves `made`."""
    made = str(place / "made")
    path = {"_target_": "pathlib.Path", "_args_": [made]}
    return {
        "mkdir": {"_target_": "os.mkdir", "path": made},
        "spawn": {"_target_": "setuptools._distutils.spawn.spawn", "cmd": ["mkdir", made]},
        "write_text": {"_target_": "pathlib.Path.write_text", "_args_": [path, "x"]},
        "torch.load": {"_target_": "torch.load", "f": str(place / "torch.pt"), "weights_only": False},
        "read_pickle": {"_target_": "pandas.read_pickle", "filepath_or_buffer": str(place / "pickle")},
        "exec": {"_target_": "builtins.exec", "_args_": [f"import os; os.mkdir({made!r})"]},
        "our own": {"_target_": "robust_arch.common.files.write_text", "path": path},
        "partial": {"_target_": "os.mkdir", "path": made, "_partial_": True},
        "twice": {"_target_": "hydra.utils.instantiate", "config": {"_target_": "os.mkdir", "path": made}},
    }


# where a call, or the way to one, may be hidden: from the call to the configuration
PLACES = {
    "the data set": lambda call: {"data": call},
    "a value": lambda call: {"data": {**DIGITS, "split_seed": call}},
    "a label": lambda call: {"data": {**DIGITS, "name": call}},
    "a value of a group": lambda call: {"data": {**DIGITS, "eps": {"linf": call}}},
    "a group": lambda call: {"data": {**DIGITS, "eps": call}},
    "a key that is no setting": lambda call: {"data": {**DIGITS, "more": call}},
    "a list": lambda call: {"data": {**DIGITS, "name": [call]}},
    "a data set in a list": lambda call: {"data": [DIGITS, call]},
    "an argument by position": lambda call: {"data": {**DIGITS, "_args_": [call]}},
    "behind a partial": lambda call: {"data": {**DIGITS, "_partial_": True, "split_seed": call}},
    "behind a conversion": lambda call: {"data": {**DIGITS, "_convert_": "all", "split_seed": call}},
    "a target in a target": lambda call: {"data": {**DIGITS, "_target_": call}},
    "a colliding key": lambda call: {"data": {**DIGITS, "self": call}},
    "a key with a dot": lambda call: {"data": {**DIGITS, "eps.linf": call}},
    "an interpolation": lambda call: {"data": {**DIGITS, "split_seed": "${evil}"}, "evil": call},
    "a relative interpolation": lambda call: {"data": {**DIGITS, "split_seed": "${..evil}"}, "evil": call},
    "an interpolation beside it": lambda call: {"data": {**DIGITS, "split_seed": "${.more}", "more": call}},
    "an interpolation inside": lambda call: {"data": {**DIGITS, "eps": {"linf": "${data.more}"}, "more": call}},
    "the whole data set": lambda call: {"data": "${evil}", "evil": call},
    "an interpolated target": lambda call: {"data": {**call, "_target_": "${evil}"}, "evil": call["_target_"]},
    "a created node": lambda call: {"data": {**DIGITS, "split_seed": f"${{oc.create:{json.dumps(call)}}}"}},
    "a selected node": lambda call: {"data": {**DIGITS, "split_seed": "${oc.select:evil}"}, "evil": call},
    "a nested interpolation": lambda call: {"data": {**DIGITS, "split_seed": "${${at}}"}, "at": "evil", "evil": call},
    "the threat": lambda call: {"data": DIGITS, "threat": call},
    "the norm": lambda call: {"data": DIGITS, "threat": {"norm": call, "eps": 0.1}},
    "the radius": lambda call: {"data": DIGITS, "threat": {"norm": "linf", "eps": "${evil}"}, "evil": call},
}  # fmt: skip


def test_the_calls_would_leave_something(place):
    # else their absence below would show nothing
    done = set()
    for name, call in calls(place).items():
        with contextlib.suppress(InstantiationException, TypeError):  # Hydra itself refuses some
            instantiate(OmegaConf.create(call))
        if (made := place / "made").exists():
            done.add(name)
            made.rmdir() if made.is_dir() else made.unlink()
    assert done >= {"spawn", "write_text", "torch.load", "read_pickle"}


OFTEN = ["spawn", "write_text", "torch.load", "mkdir"]
SELDOM = itertools.product(
    ["read_pickle", "exec", "our own", "partial", "twice"],
    ["a value", "an interpolation", "a created node", "the data set"],
)


@pytest.mark.parametrize(("call", "where"), [*itertools.product(OFTEN, PLACES), *SELDOM])
def test_nothing_in_a_configuration_is_called(call, where, refused, place):
    message = refused(PLACES[where](calls(place)[call]))
    assert message.startswith(("data = ", "threat = ", "threat.")), message


@pytest.mark.parametrize(
    "text", ["${oc.env:SECRET}", "${study_name:x}", "${hydra:runtime.cwd}", "\\${evil}", "${", "a\0b"]
)
@pytest.mark.parametrize("key", ["name", "split_seed", "eps"])
def test_no_text_is_resolved(key, text, refused):
    refused({"data": {**DIGITS, key: {"linf": text} if key == "eps" else text}})


INNER = st.sampled_from(["_args_", "evil", "linf", "a", "_target_", "name"])
LEAVES = st.sampled_from(["spawn", "write_text", "read_pickle", "${evil}", "${oc.env:SECRET}", "${..evil}", "${.evil}"])
NODES = st.recursive(
    LEAVES,
    lambda node: st.lists(node, min_size=1, max_size=3) | st.dictionaries(INNER, node, min_size=1, max_size=3),
    max_leaves=6,
)  # fmt: skip
KEYS = st.sampled_from(["name", "split_seed", "val_fraction", "eps", "_target_", "_args_", "_partial_", "self", "evil"])


@given(data=st.dictionaries(KEYS, NODES, min_size=1, max_size=4), evil=NODES)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_tree_of_calls_and_interpolations_does_anything(data, evil, refused, place):
    named = calls(place)

    def spelled(node):
        if isinstance(node, dict):
            return {key: spelled(value) for key, value in node.items()}
        return [spelled(value) for value in node] if isinstance(node, list) else named.get(node, node)

    refused({"data": {**DIGITS, **spelled(data)}, "evil": spelled(evil)})


def exported_with(form, place, card):
    """The path of an export whose metadata is this card."""
    save(place / "own.ckpt")
    export_checkpoint(place / "own.ckpt", place / form, form, force=True)
    write_with_card(form, place / form, place / form, card)
    return place / form


CARD = {"schema": 1, "arch": SPEC.to_dict(), "num_classes": 10, "image_shape": [1, 8, 8]}


@pytest.mark.parametrize(
    ("form", "where"), [*(("safetensors", where) for where in PLACES), ("onnx", "an interpolation")]
)
def test_metadata_is_read_in_the_same_way(where, form, refused, place):
    refused(exported_with(form, place, {**CARD, "config": PLACES[where](calls(place)["spawn"])}))


def test_of_two_equal_keys_the_one_that_is_used_is_the_one_that_is_checked(refused, place):
    data, evil = json.dumps(DIGITS), json.dumps(calls(place)["spawn"])
    text = json.dumps({**CARD, "config": {"data": DIGITS}})
    refused(exported_with("safetensors", place, text.replace(f'"data": {data}', f'"data": {data}, "data": {evil}')))


THREATS = [
    "linf", {"norm": "l7", "eps": 0.1}, {"norm": ["linf"], "eps": 0.1}, {"norm": False, "eps": 0.1},
    *({"norm": "linf", "eps": eps} for eps in (-0.1, float("nan"), True, "small", "1e999999999", 10**400)),
]  # fmt: skip
MODULE = "robust_arch.data"
TARGETS = [
    None, f"{MODULE}.dataset.Dataset", f"{MODULE}.recorded.Dataset", f"{MODULE}.image_folder.os.mkdir",
    f"{MODULE}.images.ImageSet", f"{MODULE}.nothing.Nothing",
]  # fmt: skip
SETTINGS = [
    *({"_target_": target} for target in TARGETS),
    *({"split_seed": seed} for seed in ("0", True, -1, 10**5000)),
    *({"val_fraction": fraction} for fraction in (float("nan"), "0.2")),
    {"eps": {"linf": "small"}}, {"name": None}, {"root": "/"},
]  # fmt: skip
REFUSED = [
    "digits", [TRAINED_ON], {"data": {key: value for key, value in DIGITS.items() if key != "name"}},
    *({"data": DIGITS, "threat": threat} for threat in THREATS),
    *({"data": {**DIGITS, **changes}} for changes in SETTINGS),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_values_that_are_not_allowed_are_one_error(number, refused):
    refused(REFUSED[number])


def test_the_command_line_wins(evaluated, place):
    config = {"data": calls(place)["spawn"], "threat": {"norm": calls(place)["spawn"]}}
    record = evaluated(config, "data=digits", "threat.norm=linf", "threat.eps=0.1")
    assert record.content["n_test"] == 20
    assert not (place / "made").exists()


def test_a_label_may_be_a_number(evaluated):
    assert evaluated({"data": {**DIGITS, "name": 2024}}).content["data"] == 2024


@pytest.fixture
def images(tmp_path):
    """A folder of digits as images of 8 bits that the network of `save` recognises, four per class."""
    test = Digits(name="digits").load().test
    with torch.no_grad():
        found = fitted()(test.to_unit(test.images)).argmax(dim=1)
    right = (found == test.labels).nonzero().flatten()
    for label in range(10):
        for number in right[test.labels[right] == label][:4].tolist():
            for part in ("train", "test"):
                path = tmp_path / "images" / part / str(label) / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                PIL.Image.fromarray((test.images[number, 0] * 15).numpy()).save(path)
    return tmp_path / "images"


def recorded_folder(root, **settings):
    target = "robust_arch.data.image_folder.ImageFolder"
    return {"_target_": target, "name": "images", "root": str(root), "channels": 1, "eps": {"linf": 0.1}, **settings}


def test_a_recorded_folder_is_read_and_a_recorded_cache_is_not_written(evaluated, images, place):
    # the natural use: where the run was trained, its folder need not be given again
    evil, before = place / "cache of the file", tree(images)
    record = evaluated({"data": recorded_folder(images, cache=str(evil))})
    assert record.content["n_test"] == 20
    assert not evil.exists()
    assert tree(images) == before
    assert len(list((place / "cache" / "robust_arch" / "image_folder").iterdir())) == 2


def test_a_cache_of_the_command_line_is_used(evaluated, images, place):
    own = place / "cache of the user"
    overrides = ["data=image_folder", f"data.root={images}", "data.channels=1", f"data.cache='{own}'"]
    evaluated({"data": recorded_folder(images)}, *overrides)
    assert len(list(own.iterdir())) == 2


ROOTS = ["~no_such_user/images", "/no/such/folder", "x" * 5000, "/dev/null", "", None, "a\nb", "\ud800"]


@pytest.mark.parametrize("root", ROOTS, ids=ascii)
def test_a_root_that_is_no_folder_is_one_error(root, refused, tmp_path):
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    refused({"data": recorded_folder(tmp_path / "circle" if root is None else root)})


def test_a_pipe_among_the_images_is_not_waited_for(evaluated, images):
    os.mkfifo(images / "train" / "3" / "pipe.png")
    assert evaluated({"data": recorded_folder(images)}).content["n_test"] == 20


def test_no_image_is_given_to_a_program(refused, images, monkeypatch):
    # Pillow goes by the content of a file, and hands PostScript to Ghostscript
    PIL.Image.new("L", (8, 8)).save(images / "train" / "3" / "0.png", format="EPS")
    run = []
    monkeypatch.setattr(PIL.EpsImagePlugin, "Ghostscript", lambda *args, **kwargs: run.append(args))
    refused({"data": recorded_folder(images)})
    assert run == []


def test_sizes_of_images_that_no_memory_holds_are_refused(refused, images):
    assert "data.image_size = 1000000" in refused({"data": recorded_folder(images, image_size=10**6)})


@pytest.mark.parametrize("source", ["CIFAR10", "CIFAR100", "MNIST", "SVHN"])
@pytest.mark.parametrize("named", [True, False])
def test_a_recorded_set_is_neither_downloaded_nor_its_folder_made(named, source, refused, place):
    root = str(place / "sets") if named else None
    target = "robust_arch.data.torchvision_sets.TorchvisionSet"
    data = {"_target_": target, "name": "set", "source": source, "root": root, "download": True}
    message = refused({"data": {**data, "eps": {"linf": 0.1}}})
    assert message.startswith("data.root = ")
    assert "only a checkpoint names" in message


PLUGIN = """
from pathlib import Path
from robust_arch.data.digits import Digits
Path({imported!r}).touch()
class Mine(Digits):
    pass
def function(**settings):
    return Mine(**settings)
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A package with data sets, installed or merely importable; returns the file that is made when it is imported."""

    def make(name, entry):
        imported = tmp_path / f"{name} is imported"
        (tmp_path / f"{name}.py").write_text(PLUGIN.format(imported=str(imported)))
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{entry[0]}]\nmine = {name}:{entry[1]}\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        return imported

    return make


def test_a_data_set_of_an_installed_plug_in_is_read(plugin, evaluated):
    imported = plugin("offered_plugin", ("robust_arch.data", "Mine"))
    assert evaluated({"data": {**DIGITS, "_target_": "offered_plugin.Mine"}}).content["n_test"] == 20
    assert imported.exists()


@pytest.mark.parametrize("entry", [("other.group", "Mine"), ("robust_arch.data", "Other")])
def test_a_module_is_not_imported_because_a_file_names_it(entry, plugin, refused):
    name = f"importable_{entry[1].lower()}"
    imported = plugin(name, entry)
    refused({"data": {**DIGITS, "_target_": f"{name}.Mine"}})
    assert not imported.exists()


def test_a_function_of_a_plug_in_is_no_data_set(plugin, refused):
    plugin("plugin_with_function", ("robust_arch.data", "function"))
    refused({"data": {**DIGITS, "_target_": "plugin_with_function.function"}})
