"""Files of every kind that a user may give: whole, cut off, foreign, altered, hostile."""

import json

import numpy as np
import onnx
import pytest
import torch
from altered import CARD_FORMS, Hostile, write_with_card
from safetensors.torch import save_file
from variants import RES, WIDE

from robust_arch.architectures import PRESETS
from robust_arch.errors import InputError
from robust_arch.interop import open_checkpoint

FORMS = [*CARD_FORMS, "published"]


@pytest.mark.parametrize("form", FORMS)
def test_a_file_is_recognised_by_its_content(form, exported, saved, tmp_path):
    path, content = tmp_path / "file", exported(form).read_bytes()
    path.write_bytes(content)
    opened = open_checkpoint(str(path), WIDE.to_dict())
    assert opened.spec == WIDE
    x = torch.rand(3, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(opened.net(x), saved("wide_resnet")[1](x))
    assert path.read_bytes() == content


CONTRADICTIONS = [{"depths": [1, 1, 1]}, {"widths": (8, 6, 7)}, {"activation": "silu"}, RES.to_dict(), {"depth": 3}]


@pytest.mark.parametrize("form", CARD_FORMS)
def test_the_file_s_own_architecture_need_not_be_given_and_is_not_contradicted(form, exported):
    assert open_checkpoint(exported(form)).spec == WIDE
    assert open_checkpoint(exported(form), {"depths": [1, 2, 1]}).spec == WIDE
    for arch in CONTRADICTIONS if form == "own" else CONTRADICTIONS[:1]:
        with pytest.raises(InputError, match=r"^arch = .*the checkpoint's own architecture") as raised:
            open_checkpoint(exported(form), arch)
        assert str(WIDE.to_dict()) in str(raised.value)


@pytest.mark.parametrize("arch", [None, {}, {"depths": [1, 2, 1]}], ids=str)
def test_a_published_file_needs_an_architecture(arch, exported):
    with pytest.raises(InputError, match=r"arch = .*: expected the architecture of a published checkpoint"):
        open_checkpoint(exported("published"), arch)


def test_presets_are_architectures_that_can_be_given(exported):
    with pytest.raises(InputError, match="not of the architecture"):
        open_checkpoint(exported("published"), PRESETS["wrn_16_1"].to_dict())


@pytest.mark.parametrize("share", [0, 0.00005, 0.001, 0.02, 0.1, 0.3, 0.5, 0.9, 0.99, 0.9999])
@pytest.mark.parametrize("form", [*FORMS, "legacy"])
def test_a_file_cut_off_is_refused(form, share, exported, tmp_path):
    path = tmp_path / "file"
    if form == "legacy":
        torch.save(torch.load(exported("published")), path, _use_new_zipfile_serialization=False)
    content = (path if form == "legacy" else exported(form)).read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=r"checkpoint = '.*file'"):
        open_checkpoint(path, WIDE.to_dict())


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(InputError, match=r"checkpoint = .*none': no such file"):
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


@pytest.mark.parametrize(("part", "change", "message"), [
    *(("card", *case) for case in CARDS.values()), *(("weights", *case) for case in WEIGHTS.values()),
], ids=[*CARDS, *WEIGHTS])  # fmt: skip
def test_card_and_weights_that_do_not_fit_are_refused(part, change, message, exported, tmp_path):
    card = json.loads(json.dumps(dict(open_checkpoint(exported("own")).card)))
    if part == "card":
        change(card)
    changes = (change,) if part == "weights" else ()
    write_with_card("safetensors", exported("safetensors"), tmp_path / "file", card, *changes)
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
def test_what_an_onnx_file_computes_must_be_what_is_evaluated(alter, message, exported, tmp_path):
    model = onnx.load(exported("onnx"))
    alter(model)
    (tmp_path / "file").write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=message):
        open_checkpoint(tmp_path / "file")


@pytest.mark.parametrize("place", ["model_state_dict", "optimizer", "card"])
def test_a_hostile_pickle_is_refused_and_runs_nothing(place, exported, tmp_path):
    made, path = tmp_path / "made", tmp_path / "net.pth"
    content = torch.load(exported("published"), weights_only=True)
    content[place] = {**content.get(place, {}), "fc.weight": {"step": np.float64(3), "buffer": Hostile(made)}}
    torch.save(content, path)
    with pytest.raises(InputError, match=r"checkpoint = '.*net\.pth'.*would run code when loaded is refused"):
        open_checkpoint(path, WIDE.to_dict())
    assert not made.exists()
    torch.load(path, weights_only=False)  # the file is as dangerous as it is meant to be
    assert made.exists()
