"""Published checkpoints loaded into our networks, against second networks with the published names."""

import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from altered import Hostile
from second_networks import Published, Trades, assert_same_function, images, randomised

from robust_arch.architectures import ArchSpec
from robust_arch.errors import InputError
from robust_arch.interop import load_published

SPEC = ArchSpec("wide_resnet", (1, 2, 1), (8, 6, 6), stem_width=4)


@pytest.fixture
def peer():
    return randomised(Published(SPEC.depths, SPEC.widths, SPEC.stem_width))


SPECS = {
    "no width changes": ((1, 1, 1), (16, 16, 16), 16),
    "equal widths at stride 2": ((2, 2, 2), (8, 8, 12), 4),
    "first stage as wide as the stem": ((2, 1, 2), (4, 12, 6), 4),
    "every width changes": ((1, 2, 3), (6, 10, 7), 4),
    "narrow last stage": ((2, 1, 1), (12, 20, 4), 16),
}


@pytest.mark.parametrize(("depths", "widths", "stem_width"), SPECS.values(), ids=SPECS)
def test_logits_are_those_of_the_published_network(depths, widths, stem_width):
    peer = randomised(Published(depths, widths, stem_width))
    spec = ArchSpec("wide_resnet", depths, widths, stem_width=stem_width)
    assert_same_function(load_published(peer.state_dict(), spec), peer)


@pytest.mark.parametrize(("classes", "channels"), [(100, 3), (2, 1)])
def test_classes_and_channels_are_those_of_the_weights(classes, channels):
    peer = randomised(Published(SPEC.depths, SPEC.widths, SPEC.stem_width, classes, channels))
    net = load_published(peer.state_dict(), SPEC)
    assert net(images(channels)).shape == (4, classes)
    assert_same_function(net, peer, channels)


def behind(prefix, state):
    return {f"{prefix}{key}": value for key, value in state.items()}


def optimizer_state():
    """What a cosine rule written in numpy leaves in an optimizer's state."""
    group = {"lr": np.float64(0.1), "momentum": np.float32(0.9), "step": np.int64(390), "params": [0, 1]}
    return {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [group]}


WRAPPINGS = {
    "bare": lambda state: state,
    "model_state_dict": lambda state: {"model_state_dict": state, "epoch": 99},
    "state_dict": lambda state: {"state_dict": state, "epoch": 99},
    "module.": lambda state: behind("module.", state),
    "_orig_mod.module.": lambda state: behind("_orig_mod.module.", state),
    "model._orig_mod.module.": lambda state: behind("model._orig_mod.module.", state),
    "module. inside": lambda state: {"model_state_dict": behind("module.", state)},
    "with an optimizer": lambda state: {"model_state_dict": behind("model.", state), "optimizer": optimizer_state()},
    "averaged": lambda state: {"n_averaged": torch.tensor(7), **behind("module.", state)},
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
def test_what_training_code_wraps_around_weights_is_taken_off(wrap, zipped, peer, tmp_path):
    torch.save(wrap(peer.state_dict()), tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
    assert_same_function(load_published(str(tmp_path / "net.pth"), SPEC), peer)


def test_numpy_scalars_of_the_published_files_years_are_allowed_and_nothing_more_afterwards(peer, tmp_path):
    path, trusted = tmp_path / "net.pth", set(torch.serialization.get_safe_globals())
    torch.save({"model_state_dict": peer.state_dict(), "optimizer": optimizer_state()}, path)
    # the module name under which numpy before 2.0, and so the published files, pickled scalars
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            assert (b"cnumpy._core.multiarray\n" in data) == name.endswith("/data.pkl")
            archive.writestr(name, data.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    content = path.read_bytes()
    assert_same_function(load_published(path, SPEC), peer)
    assert path.read_bytes() == content
    assert set(torch.serialization.get_safe_globals()) == trusted


def without(key):
    return lambda state: {name: value for name, value in state.items() if name != key}


def with_changed(key, change):
    return lambda state: {**state, key: change(state[key])}


def with_extra(key):
    return lambda state: {**state, key: torch.ones(1)}


CHANGES = {
    "missing head": (without("fc.weight"), r"'fc\.weight'"),
    "missing stem": (without("stem_conv.weight"), r"'stem_conv\.weight'"),
    "missing statistics": (without("bn1.running_mean"), r"missing key 'bn1\.running_mean'"),
    "missing shortcut": (without("blocks.1.layer.0.convShortcut.weight"), r"missing key 'blocks\.1\.layer\.0\.convSh"),
    "unknown module": (with_extra("aux.weight"), r"unknown key 'aux\.weight'"),
    "unknown layer": (with_extra("blocks.0.layer.0.bn3.weight"), r"unknown key 'blocks\.0\.layer\.0\.bn3\.weight'"),
    "one block more": (with_extra("blocks.2.layer.1.conv1.weight"), r"unknown key 'blocks\.2\.layer\.1\.conv1"),
    "a shortcut more": (with_extra("blocks.1.layer.1.convShortcut.weight"), r"unknown key 'blocks\.1\.layer\.1\.conv"),
    "a width": (
        with_changed("blocks.0.layer.0.conv1.weight", lambda w: w[:7]),
        r"'blocks\.0\.layer\.0\.conv1\.weight' has shape \(7, 4, 3, 3\), not \(8, 4, 3, 3\)",
    ),
    "a kernel": (
        with_changed("blocks.0.layer.0.conv2.weight", lambda w: w[..., :1]),
        r"'blocks\.0\.layer\.0\.conv2\.weight' has shape \(8, 8, 3, 1\), not \(8, 8, 3, 3\)",
    ),
    "no tensor": (with_changed("bn1.bias", lambda bias: "zeros"), r"'bn1\.bias' is no plain tensor"),
    "a sparse tensor": (with_changed("bn1.bias", torch.Tensor.to_sparse), r"'bn1\.bias' is no plain tensor"),
    "integers": (with_changed("bn1.bias", torch.Tensor.int), r"'bn1\.bias' holds torch\.int32, not torch\.float32"),
    "complex": (with_changed("bn1.bias", lambda bias: bias + 0j), r"'bn1\.bias' holds torch\.complex64"),
    "several counts": (with_changed("bn1.num_batches_tracked", lambda count: count.repeat(2)), r"is no single number"),
    "not a number": (
        with_changed("fc.weight", lambda w: w.index_fill(0, torch.tensor(3), torch.nan)),
        r"'fc\.weight'.*finite",
    ),
    "infinite": (with_changed("bn1.running_var", lambda v: v / 0), r"'bn1\.running_var' is not finite"),
    "too large for float32": (with_changed("fc.bias", lambda b: b.double() * 1e300), r"'fc\.bias' is not finite in"),
    "the unused stage of another layout": (with_extra("sub_block1.layer.0.conv1.weight"), r"unknown key 'sub_block1"),
    "a flat stem": (with_changed("stem_conv.weight", torch.flatten), r"stem"),
    "a scalar head": (with_changed("fc.weight", torch.sum), r"fc"),
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
def test_weights_that_do_not_fit_are_refused(change, message, peer):
    with pytest.raises(InputError, match=rf"(?s)checkpoint.*(?:{message})"):
        load_published(change(dict(peer.state_dict())), SPEC)


@pytest.mark.parametrize(
    "changes",
    [{"depths": (1, 2, 2)}, {"depths": (1, 1, 1)}, {"widths": (8, 6, 8)}, {"stem_width": 8}, {"widths": (4, 6, 6)}],
    ids=["deeper", "shallower", "wider", "another stem", "no shortcut"],
)
def test_another_architecture_is_refused(changes, peer):
    spec = replace(SPEC, **changes)
    with pytest.raises(InputError, match="not of the architecture") as raised:
        load_published(peer.state_dict(), spec)
    assert str(spec.depths) in str(raised.value)
    assert str(spec.widths) in str(raised.value)


@pytest.mark.parametrize(
    "content", [[1, 2], torch.ones(3), {1: torch.ones(3)}, {}], ids=["list", "tensor", "int", "{}"]
)
def test_content_that_is_no_state_dict_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(InputError, match="checkpoint"):
        load_published(tmp_path / "net.pth", SPEC)


def save_for_torch(zipped):
    return lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=zipped)


def trust_torch(path):
    torch.load(path, weights_only=False)


FORMATS = {
    "zip": (save_for_torch(True), trust_torch),
    "legacy": (save_for_torch(False), trust_torch),
    "pickle": (
        lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2)),
        lambda path: pickle.loads(path.read_bytes()),
    ),
}


@pytest.mark.parametrize("place", ["beside the weights", "in the optimizer", "instead of a file's content"])
@pytest.mark.parametrize(("save", "careless_load"), FORMATS.values(), ids=FORMATS)
def test_a_hostile_pickle_is_refused_and_runs_nothing(save, careless_load, place, peer, tmp_path):
    folder, path = tmp_path / "made_by_the_file", tmp_path / "net.pth"
    hostile, weights = Hostile(folder), dict(peer.state_dict())
    content = {
        "beside the weights": {**weights, "epoch": hostile},
        "in the optimizer": {"model_state_dict": weights, "optimizer": {"lr": np.float64(0.1), "hook": hostile}},
        "instead of a file's content": hostile,
    }[place]
    save(content, path)
    with pytest.raises(InputError, match=r"checkpoint = '.*net\.pth'.*refused"):
        load_published(path, SPEC)
    assert not folder.exists()
    careless_load(path)  # the file is as dangerous as it is meant to be
    assert folder.exists()


def test_weights_of_another_family_are_refused(peer):
    spec = ArchSpec("resnet", (1, 1, 1, 1), (8, 8, 8, 8), stem_width=4)
    with pytest.raises(InputError, match=r"no 4-d tensor 'conv1\.weight'"):
        load_published(peer.state_dict(), spec)


def test_a_file_of_none_of_the_layouts_says_what_was_looked_for():
    with pytest.raises(InputError, match=r"stem_conv\.weight \(huang2021\), conv1\.weight \(trades\).*'features\.0"):
        load_published({"features.0.weight": torch.ones(1)}, SPEC)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_other_floating_point_weights_become_float32(dtype, peer, caplog):
    caplog.set_level("INFO")
    state = {key: value.to(dtype) if value.is_floating_point() else value for key, value in peer.state_dict().items()}
    peer.load_state_dict(state)  # rounded as the file is, and float32 again
    net = load_published(state, SPEC)
    assert {value.dtype for value in net.parameters()} == {torch.float32}
    assert_same_function(net, peer)
    assert f"weights in {dtype} are read as float32" in caplog.text


@pytest.mark.parametrize(
    "count", [None, torch.tensor(390.5), torch.tensor([390.0]), torch.tensor(3, dtype=torch.int32)]
)
def test_counts_of_batches_may_be_averaged_or_missing(count, peer):
    # torch did not keep them before 0.4.1, and evaluation does not read them
    state = {key: count if key.endswith("num_batches_tracked") else value for key, value in peer.state_dict().items()}
    state = {key: value for key, value in state.items() if value is not None}
    assert_same_function(load_published(state, SPEC), peer)


@pytest.mark.parametrize("with_unused", [True, False], ids=["with sub_block1", "without"])
@pytest.mark.parametrize(("depths", "widths", "stem_width"), [((2, 1, 2), (4, 12, 6), 4), ((1, 2, 3), (6, 10, 7), 16)])
def test_the_layout_of_trades(depths, widths, stem_width, with_unused, tmp_path, caplog):
    caplog.set_level("INFO")
    peer = randomised(Trades(depths, widths, stem_width))
    state = peer.state_dict()
    unused = {key for key in state if key.startswith("sub_block1.")}
    assert unused
    kept = {key: value for key, value in state.items() if with_unused or key not in unused}
    torch.save(behind("module.", kept), tmp_path / "net.pt")
    net = load_published(tmp_path / "net.pt", ArchSpec("wide_resnet", depths, widths, stem_width=stem_width))
    assert_same_function(net, peer)
    assert (f"{len(unused)} tensors under sub_block1." in caplog.text) == with_unused


def test_trades_has_no_shortcut_for_equal_widths():
    # its network differs from ours there: a weight is missing, and nothing is made up for it
    peer = randomised(Trades((1, 1, 1), (8, 8, 4), 4))
    state = {key: value for key, value in peer.state_dict().items() if key != "block2.layer.0.convShortcut.weight"}
    with pytest.raises(InputError, match=r"missing key 'block2\.layer\.0\.convShortcut\.weight'"):
        load_published(state, ArchSpec("wide_resnet", (1, 1, 1), (8, 8, 4), stem_width=4))
