"""Out and in again, in every format; what the files say is read here without this project's reader."""

import json
import os
import struct

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from variants import CONFIG, RES, WIDE

from robust_arch.architectures import Classifier
from robust_arch.errors import InputError
from robust_arch.interop import export_checkpoint, load_checkpoint, load_published, onnx_file, open_checkpoint

ALL = ["wide_resnet", "resnet", "grey, silu", "two channels, normalised"]


def assert_same_logits(first, second):
    x = torch.rand(6, first.normalize.mean.shape[1], 16, 16, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        assert torch.equal(first(x), second(x))


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("form", ["safetensors", "onnx"])
def test_out_and_in_again(form, name, saved, exported):
    path, net = saved(name)
    opened, own = open_checkpoint(exported(form, name)), load_checkpoint(path)
    assert (opened.spec, dict(opened.card)) == (own.spec, dict(own.card))
    assert not opened.net.training
    state = opened.net.state_dict()
    assert list(state) == list(net.state_dict())
    for key, value in net.state_dict().items():  # counts of batches too, where a format keeps them
        assert torch.equal(state[key], value) or (form == "onnx" and key.endswith("num_batches_tracked")), key
    assert_same_logits(net, opened.net)


def test_a_safetensors_file_can_be_read_with_nothing_but_its_specification(saved, exported):
    path, net = saved("two channels, normalised")
    content = exported("safetensors", "two channels, normalised").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    card = json.loads(header.pop("__metadata__")["robust_arch"])
    assert card == load_checkpoint(path).card
    assert card["arch"] == WIDE.to_dict()
    assert set(header) == set(net.state_dict())
    entry = header["normalize.std"]
    values = np.frombuffer(data[slice(*entry["data_offsets"])], dtype="<f4")
    assert (entry["dtype"], entry["shape"], values.tolist()) == ("F32", [1, 2, 1, 1], [0.5, 0.125])


@pytest.mark.parametrize("layout", [None, "huang2021", "trades"])
def test_published_and_back(layout, saved, tmp_path):
    path, net = saved("wide_resnet")
    export_checkpoint(path, tmp_path / "out.pth", "published", layout=layout)
    content = torch.load(tmp_path / "out.pth", weights_only=True)
    assert list(content) == ["model_state_dict"]
    stem = "conv1.weight" if layout == "trades" else "stem_conv.weight"
    assert torch.equal(content["model_state_dict"][stem], net.network.stem.weight)
    assert_same_logits(net, load_published(tmp_path / "out.pth", WIDE))


@pytest.mark.parametrize("name", ["resnet", "grey, silu"])
def test_published_resnet_and_back(name, saved, tmp_path):
    path, net = saved(name)
    export_checkpoint(path, tmp_path / "out.pth", "published")
    spec = load_checkpoint(path).spec
    opened = open_checkpoint(tmp_path / "out.pth", spec.to_dict())
    assert (opened.spec, dict(opened.card)) == (spec, {})
    assert_same_logits(net, opened.net)


@pytest.mark.parametrize("name", ALL)
def test_an_onnx_file_computes_the_logits_by_itself(name, saved, exported):
    path, net = saved(name)
    session = onnxruntime.InferenceSession(exported("onnx", name))
    for count in (1, 2, 7):
        x = torch.rand(count, *load_checkpoint(path).card["image_shape"])
        (logits,) = session.run(None, {"images": x.numpy()})
        with torch.no_grad():
            expected = net(x).numpy()
        assert logits.shape == expected.shape
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_an_onnx_file_holds_weights_by_name_and_no_paths(saved, exported):
    (path, net), out = saved("two channels, normalised"), exported("onnx", "two channels, normalised")
    model = onnx.load(out)
    onnx.checker.check_model(model, full_check=True)
    held = {item.name: onnx.numpy_helper.to_array(item) for item in model.graph.initializer}
    expected = {key: value for key, value in net.state_dict().items() if "num_batches" not in key}
    assert set(held) == set(expected)
    assert all(np.array_equal(held[key], value.numpy()) for key, value in expected.items())
    (metadata,) = model.metadata_props
    assert (metadata.key, json.loads(metadata.value)) == ("robust_arch", load_checkpoint(path).card)
    content = out.read_bytes()
    assert b"site-packages" not in content
    assert b".py" not in content
    assert os.sep.encode() + b"robust_arch" not in content


@pytest.mark.parametrize("form", ["safetensors", "onnx"])
def test_an_export_can_be_exported_again(form, saved, exported, tmp_path):
    export_checkpoint(exported(form, "resnet"), tmp_path / "again.pth", "published")
    assert_same_logits(saved("resnet")[1], load_published(tmp_path / "again.pth", RES))


@pytest.mark.parametrize(
    ("name", "form", "layout", "message"),
    [
        ("two channels, normalised", "published", None, r"format = 'published': .*normalises its input"),
        ("wide_resnet", "pickle", None, r"format = 'pickle': .*one of published, safetensors, onnx, robustbench"),
        ("wide_resnet", "published", "keras", r"layout = 'keras': .*for family wide_resnet one of huang2021, trades"),
        ("wide_resnet", "published", "pytorch_cifar", r"layout = 'pytorch_cifar': .*for family wide_resnet"),
        ("wide_resnet", "safetensors", "trades", r"layout = 'trades': .*nothing"),
    ],
)
def test_formats_and_layouts_that_are_not_allowed_are_named(name, form, layout, message, saved, tmp_path):
    with pytest.raises(InputError, match=message):
        export_checkpoint(saved(name)[0], tmp_path / "out", form, layout=layout)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_replaced_only_if_asked(saved, tmp_path):
    path, net = saved("wide_resnet")
    out = tmp_path / "out.safetensors"
    out.write_text("mine")
    with pytest.raises(InputError, match=r"out = '.*out\.safetensors': .*--force"):
        export_checkpoint(path, out, "safetensors")
    assert out.read_text() == "mine"
    export_checkpoint(path, out, "safetensors", force=True)
    assert_same_logits(net, open_checkpoint(out).net)


def test_the_source_is_never_written_over(saved, tmp_path):
    path, _ = saved("wide_resnet")
    content = path.read_bytes()
    (tmp_path / "link.ckpt").symlink_to(path)
    (tmp_path / "hard.ckpt").hardlink_to(path)
    for out in (path, tmp_path / "link.ckpt", tmp_path / "hard.ckpt"):
        with pytest.raises(InputError, match=r"out = .*another file than the one that is read"):
            export_checkpoint(path, out, "safetensors", force=True)
    assert path.read_bytes() == content


@pytest.mark.parametrize("form", ["published", "safetensors", "onnx"])
def test_a_file_that_fails_its_check_is_not_kept(form, saved, tmp_path, monkeypatch):
    path, _ = saved("wide_resnet")
    out = tmp_path / "out"
    out.write_text("mine")
    honest, calls = Classifier.forward, []

    def drifting(self, x):
        calls.append(1)
        logits = honest(self, x)
        return logits + len(calls)

    monkeypatch.setattr(Classifier, "forward", drifting)
    with pytest.raises(InputError, match=r"would not give the checkpoint's logits|does not compute"):
        export_checkpoint(path, out, form, force=True)
    assert [file.name for file in tmp_path.iterdir()] == ["out"]
    assert out.read_text() == "mine"


@pytest.mark.parametrize("name", ["onnx", "onnxscript", "onnxruntime"])
def test_without_the_extra_its_name_is_said(name, saved, tmp_path, monkeypatch):
    path, _ = saved("wide_resnet")

    def missing(module):
        if module == name:
            raise ImportError(module)
        return pytest

    monkeypatch.setattr(onnx_file, "import_module", missing)
    with pytest.raises(InputError, match=rf"need the package {name}: .*robust-arch\[onnx\]"):
        export_checkpoint(path, tmp_path / "out.onnx", "onnx")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_plain_data_stays_behind_with_a_warning(saved, tmp_path, caplog):
    path, _ = saved("wide_resnet")
    content = torch.load(path, weights_only=True)
    content["card"] |= {"tensor": torch.ones(1), "endless": float("inf")}
    torch.save(content, tmp_path / "odd.ckpt")
    export_checkpoint(tmp_path / "odd.ckpt", tmp_path / "out.safetensors", "safetensors")
    assert set(open_checkpoint(tmp_path / "out.safetensors").card) == set(content["card"]) - {"tensor", "endless"}
    assert "endless, tensor" in caplog.text
    assert open_checkpoint(tmp_path / "out.safetensors").card["config"] == CONFIG
