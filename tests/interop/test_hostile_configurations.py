"""Checkpoints whose recorded configuration wants to run, create or write something."""

import contextlib
import copy
import functools
import json
import os
import pickle

import onnx
import PIL.EpsImagePlugin
import PIL.Image
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf, open_dict, read_write
from safetensors.torch import load_file, save_file
from test_evaluate import SPEC, TRAINED_ON, fitted, save

from robust_arch.common.paths import conf_dir
from robust_arch.configuration.resolvers import register_resolvers
from robust_arch.data.digits import Digits
from robust_arch.errors import InputError
from robust_arch.evaluate import evaluate
from robust_arch.interop import export_checkpoint

DIGITS = TRAINED_ON["data"]


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder for the files, with a pickle inside that makes `made`; `home` and `cache` are the user's."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "pickle").write_bytes(pickle.dumps(Touch(str(folder / "made"))))
    torch.save(Touch(str(folder / "made")), folder / "torch.pt")
    return folder


@pytest.fixture(autouse=True)
def user(place, monkeypatch):
    """A home of the user's own, in which nothing is."""
    monkeypatch.setenv("HOME", str(place / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    monkeypatch.setenv("SECRET", "a word of the environment")


@pytest.fixture(scope="module")
def evaluated(place):
    """From a file and overrides to its evaluation record, by the configuration that the command composes."""

    @functools.cache
    def composed(*overrides):
        register_resolvers()
        GlobalHydra.instance().clear()
        few = ["evaluate.attacks=[fgsm]", "evaluate.n=20", "trainer.accelerator=cpu", f"results_dir={place}/results"]
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            cfg = compose("evaluate", [*few, *overrides], return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        with read_write(cfg), open_dict(cfg):
            del cfg["hydra"]
        return cfg

    def run(path, *overrides):
        cfg = copy.deepcopy(composed(*overrides))
        cfg.checkpoint = str(path)
        return evaluate(cfg)

    return run


def calls(place):
    """What a configuration would call, were it instantiated: each leaves `made`."""
    made = str(place / "made")
    return {
        "mkdir": {"_target_": "os.mkdir", "path": made},
        "spawn": {"_target_": "setuptools._distutils.spawn.spawn", "cmd": ["mkdir", made]},
        "write_text": {
            "_target_": "pathlib.Path.write_text",
            "_args_": [{"_target_": "pathlib.Path", "_args_": [made]}, "x"],
        },
        "torch.load": {"_target_": "torch.load", "f": str(place / "torch.pt"), "weights_only": False},
        "read_pickle": {"_target_": "pandas.read_pickle", "filepath_or_buffer": str(place / "pickle")},
        "exec": {"_target_": "builtins.exec", "_args_": [f"import os; os.mkdir({made!r})"]},
        "our own": {
            "_target_": "robust_arch.common.files.write_text",
            "path": {"_target_": "pathlib.Path", "_args_": [made]},
        },
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


def tree(folder):
    """Every path below it."""
    return sorted(str(path) for path in folder.rglob("*"))


def require_refused(evaluated, place, path, *overrides):
    """The file ends in an InputError, of one line, and leaves nothing behind."""
    before = tree(place)
    with pytest.raises(InputError) as raised:
        evaluated(path, *overrides)
    assert len(str(raised.value).splitlines()) == 1
    assert "a word of the environment" not in str(raised.value)
    assert tree(place) == before
    return str(raised.value)


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


@pytest.mark.parametrize("call", ["spawn", "write_text", "torch.load", "mkdir"])
@pytest.mark.parametrize("where", PLACES)
def test_nothing_in_a_configuration_is_called(where, call, evaluated, place):
    save(place / "evil.ckpt", config=PLACES[where](calls(place)[call]))
    message = require_refused(evaluated, place, place / "evil.ckpt")
    assert message.startswith(("data = ", "threat = ", "threat.")), message


@pytest.mark.parametrize("call", ["read_pickle", "exec", "our own", "partial", "twice"])
@pytest.mark.parametrize("where", ["a value", "an interpolation", "a created node", "the data set"])
def test_whatever_is_named(where, call, evaluated, place):
    save(place / "evil.ckpt", config=PLACES[where](calls(place)[call]))
    require_refused(evaluated, place, place / "evil.ckpt")


@pytest.mark.parametrize(
    "text", ["${oc.env:SECRET}", "${study_name:x}", "${hydra:runtime.cwd}", "\\${evil}", "${", "a\0b"]
)
@pytest.mark.parametrize("key", ["name", "split_seed", "eps"])
def test_no_text_is_resolved(key, text, evaluated, place):
    save(place / "evil.ckpt", config={"data": {**DIGITS, key: {"linf": text} if key == "eps" else text}})
    require_refused(evaluated, place, place / "evil.ckpt")


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
def test_no_tree_of_calls_and_interpolations_does_anything(data, evil, evaluated, place):
    named = calls(place)

    def spelled(node):
        if isinstance(node, dict):
            return {key: spelled(value) for key, value in node.items()}
        return [spelled(value) for value in node] if isinstance(node, list) else named.get(node, node)

    save(place / "evil.ckpt", config={"data": {**DIGITS, **spelled(data)}, "evil": spelled(evil)})
    require_refused(evaluated, place, place / "evil.ckpt")


def in_safetensors(source, out, card):
    export_checkpoint(source, out, "safetensors", force=True)
    save_file(load_file(out), out, metadata={"robust_arch": card})


def in_onnx(source, out, card):
    export_checkpoint(source, out, "onnx", force=True)
    model = onnx.load(out)
    onnx.helper.set_model_props(model, {"robust_arch": card})
    out.write_bytes(model.SerializeToString())


METADATA = [(in_safetensors, where) for where in PLACES] + [(in_onnx, "an interpolation")]


@pytest.mark.parametrize(("write", "where"), METADATA)
def test_metadata_is_read_as_plainly(where, write, evaluated, place):
    save(place / "own.ckpt")
    card = {"schema": 1, "arch": SPEC.to_dict(), "num_classes": 10, "image_shape": [1, 8, 8]}
    card["config"] = PLACES[where](calls(place)["spawn"])
    write(place / "own.ckpt", place / "evil", json.dumps(card))
    require_refused(evaluated, place, place / "evil")


def test_of_two_equal_keys_the_one_that_is_used_is_the_one_that_is_checked(evaluated, place):
    save(place / "own.ckpt")
    card = {"arch": SPEC.to_dict(), "num_classes": 10, "image_shape": [1, 8, 8], "config": {"data": DIGITS}}
    data, evil = json.dumps(DIGITS), json.dumps(calls(place)["spawn"])
    text = json.dumps(card).replace(f'"data": {data}', f'"data": {data}, "data": {evil}')
    in_safetensors(place / "own.ckpt", place / "evil", text)
    require_refused(evaluated, place, place / "evil")


PLAIN = {
    "a configuration of another type": {"config": "digits"},
    "a list of configurations": {"config": [TRAINED_ON]},
    "a threat of another type": {"config": {"data": DIGITS, "threat": "linf"}},
    "an unknown norm": {"config": {"data": DIGITS, "threat": {"norm": "l7", "eps": 0.1}}},
    "a list of norms": {"config": {"data": DIGITS, "threat": {"norm": ["linf"], "eps": 0.1}}},
    "no norm but false": {"config": {"data": DIGITS, "threat": {"norm": False, "eps": 0.1}}},
    "a radius below 0": {"config": {"data": DIGITS, "threat": {"norm": "linf", "eps": -0.1}}},
    "a radius that is no number": {"config": {"data": DIGITS, "threat": {"norm": "linf", "eps": float("nan")}}},
    "a radius of true": {"config": {"data": DIGITS, "threat": {"norm": "linf", "eps": True}}},
    "a radius in words": {"config": {"data": DIGITS, "threat": {"norm": "linf", "eps": "small"}}},
    "a radius of a billion digits": {"config": {"data": DIGITS, "threat": {"norm": "l2", "eps": "1e999999999"}}},
    "a radius beyond any float": {"config": {"data": DIGITS, "threat": {"norm": "l2", "eps": 10**400}}},
    "a usual radius in words": {"config": {"data": {**DIGITS, "eps": {"linf": "small"}}}},
    "a seed in words": {"config": {"data": {**DIGITS, "split_seed": "0"}}},
    "a seed of true": {"config": {"data": {**DIGITS, "split_seed": True}}},
    "a seed below 0": {"config": {"data": {**DIGITS, "split_seed": -1}}},
    "a seed of many digits": {"config": {"data": {**DIGITS, "split_seed": 10**5000}}},
    "a fraction that is no number": {"config": {"data": {**DIGITS, "val_fraction": float("nan")}}},
    "a fraction in words": {"config": {"data": {**DIGITS, "val_fraction": "0.2"}}},
    "no label": {"config": {"data": {key: value for key, value in DIGITS.items() if key != "name"}}},
    "a label of another type": {"config": {"data": {**DIGITS, "name": None}}},
    "an abstract data set": {"config": {"data": {**DIGITS, "_target_": "robust_arch.data.dataset.Dataset"}}},
    "a data set by another way": {"config": {"data": {**DIGITS, "_target_": "robust_arch.data.recorded.Dataset"}}},
    "a setting of another set": {"config": {"data": {**DIGITS, "root": "/"}}},
}


@pytest.mark.parametrize("card", PLAIN.values(), ids=PLAIN)
def test_values_that_are_not_allowed_are_one_error(card, evaluated, place):
    save(place / "evil.ckpt", **card)
    require_refused(evaluated, place, place / "evil.ckpt")


def test_the_command_line_wins(evaluated, place):
    save(place / "evil.ckpt", config={"data": calls(place)["spawn"], "threat": {"norm": calls(place)["spawn"]}})
    record = evaluated(place / "evil.ckpt", "data=digits", "threat.norm=linf", "threat.eps=0.1")
    assert record.content["n_test"] == 20
    assert not (place / "made").exists()


def test_a_label_may_be_a_number(evaluated, place):
    save(place / "own.ckpt", config={"data": {**DIGITS, "name": 2024}})
    assert evaluated(place / "own.ckpt").content["data"] == 2024


@pytest.fixture
def images(place, tmp_path):
    """A folder of digits as images, two classes of four."""
    images, labels = fitted_images()
    for part in ("train", "test"):
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            folder = tmp_path / "images" / part / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(image).save(folder / f"{number}.png")
    return tmp_path / "images"


def fitted_images():
    """Some digits in 8 bits that the network of `save` tells apart."""
    test = Digits(name="digits").load().test
    net = fitted()
    with torch.no_grad():
        found = net(test.to_unit(test.images)).argmax(dim=1)
    right = (found == test.labels).nonzero().flatten()
    chosen = torch.cat([right[test.labels[right] == label][:4] for label in range(10)])
    return (test.images[chosen, 0] * 15).numpy(), test.labels[chosen].tolist()


def recorded_folder(root, **settings):
    target = "robust_arch.data.image_folder.ImageFolder"
    return {"_target_": target, "name": "images", "root": str(root), "channels": 1, "eps": {"linf": 0.1}, **settings}


def test_a_recorded_folder_is_read_and_a_recorded_cache_is_not_written(evaluated, images, place):
    # the natural use: where the run was trained, its folder need not be said again
    evil = place / "cache of the file"
    save(place / "own.ckpt", config={"data": recorded_folder(images, cache=str(evil))})
    before = tree(images)
    record = evaluated(place / "own.ckpt")
    assert record.content["n_test"] == 20
    assert not evil.exists()
    assert tree(images) == before
    assert len(list((place / "cache" / "robust_arch" / "image_folder").iterdir())) == 2


def test_a_cache_of_the_command_line_is_used(evaluated, images, place):
    save(place / "own.ckpt", config={"data": recorded_folder(images)})
    own = place / "cache of the user"
    overrides = ["data=image_folder", f"data.root={images}", "data.channels=1", f"data.cache='{own}'"]
    evaluated(place / "own.ckpt", *overrides)
    assert len(list(own.iterdir())) == 2


ROOTS = ["~no_such_user/images", "/no/such/folder", "x" * 5000, "/dev/null", "", "a\nb", "\ud800"]


@pytest.mark.parametrize("root", ROOTS, ids=ascii)
def test_a_root_that_is_no_folder_is_one_error(root, evaluated, place):
    save(place / "evil.ckpt", config={"data": recorded_folder(root)})
    require_refused(evaluated, place, place / "evil.ckpt")


def test_links_in_a_circle_are_one_error(evaluated, place, tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    save(place / "evil.ckpt", config={"data": recorded_folder(tmp_path / "a")})
    require_refused(evaluated, place, place / "evil.ckpt")


def test_a_pipe_among_the_images_is_not_waited_for(evaluated, images, place):
    os.mkfifo(images / "train" / "3" / "pipe.png")
    save(place / "evil.ckpt", config={"data": recorded_folder(images)})
    assert evaluated(place / "evil.ckpt").content["n_test"] == 20


def test_no_image_is_given_to_a_program(evaluated, images, place, monkeypatch):
    # pillow goes by the content of a file, and hands PostScript to Ghostscript
    path = images / "train" / "3" / "0.png"
    PIL.Image.new("L", (8, 8)).save(path, format="EPS")
    run = []
    monkeypatch.setattr(PIL.EpsImagePlugin, "Ghostscript", lambda *args, **kwargs: run.append(args))
    save(place / "evil.ckpt", config={"data": recorded_folder(images)})
    require_refused(evaluated, place, place / "evil.ckpt")
    assert run == []


def test_sizes_of_images_that_no_memory_holds_are_refused(evaluated, images, place):
    save(place / "evil.ckpt", config={"data": recorded_folder(images, image_size=10**6)})
    assert "data.image_size = 1000000" in require_refused(evaluated, place, place / "evil.ckpt")


@pytest.mark.parametrize("source", ["CIFAR10", "CIFAR100", "MNIST", "SVHN"])
@pytest.mark.parametrize("named", [True, False])
def test_a_recorded_set_is_neither_downloaded_nor_its_folder_made(named, source, evaluated, place):
    root = str(place / "sets") if named else None
    target = "robust_arch.data.torchvision_sets.TorchvisionSet"
    data = {"_target_": target, "name": "set", "source": source, "root": root, "download": True}
    save(place / "evil.ckpt", config={"data": {**data, "eps": {"linf": 0.1}}})
    message = require_refused(evaluated, place, place / "evil.ckpt")
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


def test_a_data_set_of_an_installed_plug_in_is_read(plugin, evaluated, place):
    imported = plugin("offered_plugin", ("robust_arch.data", "Mine"))
    save(place / "own.ckpt", config={"data": {**DIGITS, "_target_": "offered_plugin.Mine"}})
    assert evaluated(place / "own.ckpt").content["n_test"] == 20
    assert imported.exists()


@pytest.mark.parametrize("entry", [("other.group", "Mine"), ("robust_arch.data", "Other")])
def test_a_module_is_not_imported_because_a_file_names_it(entry, plugin, evaluated, place):
    imported = plugin(f"importable_{entry[1].lower()}", entry)
    save(place / "evil.ckpt", config={"data": {**DIGITS, "_target_": f"importable_{entry[1].lower()}.Mine"}})
    require_refused(evaluated, place, place / "evil.ckpt")
    assert not imported.exists()


def test_a_function_of_a_plug_in_is_no_data_set(plugin, evaluated, place):
    plugin("plugin_with_function", ("robust_arch.data", "function"))
    save(place / "evil.ckpt", config={"data": {**DIGITS, "_target_": "plugin_with_function.function"}})
    require_refused(evaluated, place, place / "evil.ckpt")
