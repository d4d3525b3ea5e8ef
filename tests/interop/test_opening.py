"""Files of every kind as a user may hand them in: whole, cut off, foreign, altered, hostile."""

import json
import os
import struct

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file
from second_networks import Trades, randomised
from variants import RES, WIDE

from robust_arch.architectures import PRESETS
from robust_arch.errors import InputError
from robust_arch.interop import export_checkpoint, load_checkpoint, open_checkpoint


@pytest.fixture(scope="module")
def files(saved, tmp_path_factory):
    """One network in every form."""
    folder = tmp_path_factory.mktemp("files")
    source, net = saved("wide_resnet")
    for form in ("published", "safetensors", "onnx"):
        export_checkpoint(source, folder / form, form)
    return {"own": source, **{form: folder / form for form in ("published", "safetensors", "onnx")}, "net": net}


KINDS = ["own", "published", "safetensors", "onnx"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_content_says_what_a_file_is(kind, files, tmp_path):
    # under a name that says nothing
    path = tmp_path / "file"
    path.write_bytes(files[kind].read_bytes())
    opened = open_checkpoint(str(path), WIDE.to_dict())
    assert opened.spec == WIDE
    x = torch.rand(3, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(opened.net(x), files["net"](x))
    assert path.read_bytes() == files[kind].read_bytes()


@pytest.mark.parametrize("kind", ["own", "safetensors", "onnx"])
def test_the_file_s_own_architecture_needs_not_be_said(kind, files):
    assert open_checkpoint(files[kind]).spec == WIDE
    assert open_checkpoint(files[kind], {"depths": [1, 2, 1]}).spec == WIDE


CONTRADICTIONS = [{"depths": [1, 1, 1]}, {"widths": (8, 6, 7)}, {"activation": "silu"}, RES.to_dict(), {"depth": 3}]


@pytest.mark.parametrize("arch", CONTRADICTIONS, ids=str)
@pytest.mark.parametrize("kind", ["own", "safetensors", "onnx"])
def test_an_architecture_that_contradicts_the_file_is_named(kind, arch, files):
    with pytest.raises(InputError, match=r"^arch = .*the checkpoint's own architecture") as raised:
        open_checkpoint(files[kind], arch)
    assert str(WIDE.to_dict()) in str(raised.value)


@pytest.mark.parametrize("arch", [None, {}, {"depths": [1, 2, 1]}], ids=str)
def test_a_published_file_needs_an_architecture(arch, files):
    with pytest.raises(InputError, match=r"arch = .*: the architecture of a published checkpoint, like arch=wrn_34_r"):
        open_checkpoint(files["published"], arch)


def test_the_trades_layout_is_recognised(tmp_path):
    peer = randomised(Trades((1, 2, 1), (8, 6, 10), 4))
    torch.save(peer.state_dict(), tmp_path / "net.pt")
    opened = open_checkpoint(tmp_path / "net.pt", {"depths": [1, 2, 1], "widths": [8, 6, 10], "stem_width": 4})
    x = torch.rand(3, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(opened.net(x), peer(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("share", [0, 0.00005, 0.001, 0.02, 0.1, 0.3, 0.5, 0.9, 0.99, 0.9999])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_off_is_refused(kind, share, files, tmp_path):
    content = files[kind].read_bytes()
    (tmp_path / "file").write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=r"checkpoint = '.*file'"):
        open_checkpoint(tmp_path / "file", WIDE.to_dict())


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(InputError, match=r"checkpoint = .*no such file"):
        open_checkpoint(tmp_path / "none")
    with pytest.raises(InputError, match=r"checkpoint = .*a file, not a folder"):
        open_checkpoint(tmp_path)


def foreign_safetensors(path):
    save_file({"weight": torch.ones(2)}, path)


def foreign_safetensors_with_notes(path):
    save_file({"weight": torch.ones(2)}, path, metadata={"format": "pt", "robust_arch": "yes"})


def foreign_onnx(path):
    node = onnx.helper.make_node("Relu", ["images"], ["logits"])
    kind = onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, [1, 3])
    graph = onnx.helper.make_graph([node], "other", [kind], [onnx.helper.make_empty_tensor_value_info("logits")])
    onnx.save(onnx.helper.make_model(graph), path)


@pytest.mark.parametrize("write", [foreign_safetensors, foreign_safetensors_with_notes, foreign_onnx])
def test_a_foreign_file_is_refused(write, tmp_path):
    write(tmp_path / "file")
    with pytest.raises(InputError, match=r"checkpoint = '.*file': expected a file exported by this project"):
        open_checkpoint(tmp_path / "file", WIDE.to_dict())


def rewritten(path, change_card=None, change_weights=None):
    """A safetensors file with another card or other weights."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    card = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["robust_arch"])
    weights = load_file(path)
    (change_card or (lambda _: None))(card)
    (change_weights or (lambda _: None))(weights)
    save_file(weights, path, metadata={"robust_arch": json.dumps(card)})


CARDS = {
    "no architecture": (lambda card: card.pop("arch"), r"its card has no arch"),
    "classes in words": (lambda card: card.update(num_classes="ten"), r"its card has no arch, num_classes"),
    "two sides": (lambda card: card.update(image_shape=[3, 16]), r"its card has no arch, num_classes and image_shape"),
    "no image": (lambda card: card.update(image_shape=[3, 0, 16]), r"image_shape = \(3, 0, 16\)"),
    "another width": (lambda card: card["arch"].update(widths=[8, 6, 7]), r"not of the architecture.*has shape"),
    "another family": (lambda card: card.update(arch=RES.to_dict()), r"not of the architecture resnet.*missing key"),
    "unknown family": (lambda card: card["arch"].update(family="os"), r"arch\.family = 'os'"),
    "more channels": (lambda card: card.update(image_shape=[4, 16, 16]), r"'normalize\.mean' has shape"),
}
WEIGHTS = {
    "missing": (lambda weights: weights.pop("normalize.std"), r"missing key 'normalize\.std'"),
    "unknown": (lambda weights: weights.update(more=torch.ones(1)), r"unknown key 'more'"),
    "not finite": (lambda weights: weights["network.fc.bias"].fill_(torch.nan), r"'network\.fc\.bias' is not finite"),
}


@pytest.mark.parametrize(("change", "message"), CARDS.values(), ids=CARDS)
def test_a_card_that_does_not_describe_the_weights_is_refused(change, message, files, tmp_path):
    (tmp_path / "file").write_bytes(files["safetensors"].read_bytes())
    rewritten(tmp_path / "file", change_card=change)
    with pytest.raises(InputError, match=message):
        open_checkpoint(tmp_path / "file")


@pytest.mark.parametrize(("change", "message"), WEIGHTS.values(), ids=WEIGHTS)
def test_weights_that_do_not_fit_the_card_are_refused(change, message, files, tmp_path):
    (tmp_path / "file").write_bytes(files["safetensors"].read_bytes())
    rewritten(tmp_path / "file", change_weights=change)
    with pytest.raises(InputError, match=message):
        open_checkpoint(tmp_path / "file")


def without_an_activation(model):
    node = next(node for node in model.graph.node if node.op_type == "Relu")
    node.op_type = "Identity"


def with_other_logits(model):
    node = model.graph.node[-1]
    node.output[0] = "before"
    model.graph.node.append(onnx.helper.make_node("Neg", ["before"], ["logits"]))


def with_a_renamed_input(model):
    for node in model.graph.node:
        node.input[:] = ["x" if name == "images" else name for name in node.input]
    model.graph.input[0].name = "x"


def with_weights_elsewhere(model):
    item = model.graph.initializer[0]
    item.ClearField("raw_data")
    item.data_location = onnx.TensorProto.EXTERNAL
    item.external_data.add(key="location", value="/etc/hostname")


def with_another_weight(model):
    item = next(item for item in model.graph.initializer if item.name == "network.fc.bias")
    item.name = "network.fc.offset"


def with_one_logit_less(model):
    node = model.graph.node[-1]
    node.output[0] = "before"
    constants = {"from": [0], "to": [9], "axis": [1]}
    for name, value in constants.items():
        tensor = onnx.numpy_helper.from_array(np.array(value, dtype=np.int64), name)
        model.graph.node.append(onnx.helper.make_node("Constant", [], [name], value=tensor))
    model.graph.node.append(onnx.helper.make_node("Slice", ["before", "from", "to", "axis"], ["logits"]))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 9


ALTERATIONS = {
    "without an activation": (without_an_activation, r"does not compute what its weights do"),
    "other logits": (with_other_logits, r"does not compute what its weights do"),
    "a renamed input": (with_a_renamed_input, r"an ONNX file that onnxruntime runs"),
    "weights in another file": (with_weights_elsewhere, r"in another file"),
    "another weight": (with_another_weight, r"missing key 'network\.fc\.bias'; unknown key 'network\.fc\.offset'"),
    "one logit less": (with_one_logit_less, r"logits of shape \(5, 9\), not \(5, 10\)"),
}


@pytest.mark.parametrize(("alter", "message"), ALTERATIONS.values(), ids=ALTERATIONS)
def test_what_an_onnx_file_computes_must_be_what_is_evaluated(alter, message, files, tmp_path):
    model = onnx.load(files["onnx"])
    alter(model)
    (tmp_path / "file").write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=message):
        open_checkpoint(tmp_path / "file")


class Hostile:
    """Runs a shell command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("place", ["model_state_dict", "optimizer", "card"])
def test_a_hostile_pickle_is_refused_and_runs_nothing(place, files, tmp_path):
    touched, path = tmp_path / "touched", tmp_path / "net.pth"
    content = torch.load(files["published"], weights_only=True)
    hostile = Hostile(touched)
    if place == "model_state_dict":
        content["model_state_dict"]["fc.weight"] = hostile
    else:
        content[place] = {"state": {0: {"step": np.float64(3), "momentum_buffer": hostile}}}
    torch.save(content, path)
    with pytest.raises(InputError, match=r"checkpoint = '.*net\.pth'.*would run code when loaded is refused"):
        open_checkpoint(path, WIDE.to_dict())
    assert not touched.exists()
    torch.load(path, weights_only=False)  # the file is as dangerous as it is meant to be
    assert touched.exists()


def test_own_files_must_be_finite_too(files, tmp_path):
    content = torch.load(files["own"], weights_only=True)
    content["state_dict"]["net.network.stages.1.0.conv1.weight"][0, 0, 0, 0] = torch.inf
    torch.save(content, tmp_path / "best.ckpt")
    with pytest.raises(InputError, match=r"'net\.network\.stages\.1\.0\.conv1\.weight' is not finite"):
        load_checkpoint(tmp_path / "best.ckpt")


def test_presets_are_architectures_that_can_be_given(files):
    # a mapping with tuples or lists, or none of the optional fields
    with pytest.raises(InputError, match="not of the architecture"):
        open_checkpoint(files["published"], PRESETS["wrn_16_1"].to_dict())
