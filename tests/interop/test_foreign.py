"""Files that are no checkpoints, or would keep a reader busy: refused in our own words, before anything is computed."""

import gzip
import io
import os
import pickle
import tarfile
import zipfile

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from safetensors.torch import save
from torch import nn

from robust_arch.common.files import MOST_OUTCOMES, read_arrays
from robust_arch.errors import InputError
from robust_arch.interop import open_checkpoint
from robust_arch.interop.reading import read_weights_only


def written(write):
    """The bytes that a function writes to a file."""
    out = io.BytesIO()
    write(out)
    return out.getvalue()


def torch_bytes(content, *, zipped=True):
    return written(lambda out: torch.save(content, out, _use_new_zipfile_serialization=zipped))


def archive(entries, compression=zipfile.ZIP_STORED):
    def write(out):
        with zipfile.ZipFile(out, "w", compression) as file:
            for name, data in entries.items():
                file.writestr(name, data)

    return written(write)


def with_pickle(pickled):
    """A torch file with another pickle."""
    with zipfile.ZipFile(io.BytesIO(STATE)) as file:
        return archive({name: pickled if name.endswith("/data.pkl") else file.read(name) for name in file.namelist()})


MODEL = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
STATE = torch_bytes(MODEL.state_dict())
FOREIGN = {
    "nothing": (b"", "is empty"),
    "a web page": (b"\n <!DOCTYPE html><html><body>Log in", "looks like a web page"),
    "a web page behind a mark": (b"\xef\xbb\xbf<HTML>", "looks like a web page"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "is a Git LFS pointer"),
    "gzip": (gzip.compress(STATE), r"is compressed \(gzip, bzip2"),
    "tar": (tarfile.TarInfo("net.pth").tobuf(), r"is an archive \(7-Zip, RAR or tar\)"),
    "JSON": (b'{"data":{"weight_map": {}}}', "is a text file"),
    "npz": (written(lambda out: np.savez(out, a=np.ones(3))), r"is a numpy archive \(\.npz\)"),
    "another zip": (archive({"word/document.xml": b"<w/>"}), "is a zip archive of something else"),
    "TorchScript": (
        written(lambda out: torch.jit.save(torch.jit.script(nn.Linear(2, 2)), out)),
        "is a TorchScript program",
    ),
    "safetensors": (save({"a": torch.ones(2)}), "looks like a safetensors file"),
    "a zip archive's first bytes": (b"PK\x03\x04" + bytes(40), "is cut off or damaged"),
    "cut off": (STATE[:-40], "is cut off or damaged"),
    "cut off, legacy": (torch_bytes(MODEL.state_dict(), zipped=False)[:-10], "is cut off or damaged"),
    "a model": (torch_bytes(MODEL), "holds a whole pickled model.*save its state_dict"),
    "a model, legacy": (torch_bytes(MODEL, zipped=False), "holds a whole pickled model.*save its state_dict"),
    "a model inside": (torch_bytes({"epoch": 3, "net": MODEL}), "holds a whole pickled model"),
    "a pickle": (pickle.dumps({"a": os.getcwd}, protocol=4), r"holds posix\.getcwd, and anything that would run code"),
    "colours": (b"\x1b[31mred\x1b[0m" + STATE, "is of an unknown format"),
}


@pytest.mark.parametrize(("content", "message"), FOREIGN.values(), ids=FOREIGN)
def test_what_a_file_is_instead_of_a_checkpoint(content, message, tmp_path):
    path = tmp_path / "net.pth"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"checkpoint = '.*net\.pth': .*this one {message}") as raised:
        read_weights_only(path)
    assert "weights_only" not in str(raised.value)
    assert str(raised.value).isprintable()


def test_a_name_from_a_file_cannot_colour_the_terminal(tmp_path):
    hostile = pickle.dumps(os.getcwd, protocol=2).replace(b"getcwd", b"get\x1b[31mcwd")
    (tmp_path / "net.pth").write_bytes(with_pickle(hostile))
    with pytest.raises(InputError, match=r"would run code") as raised:
        read_weights_only(tmp_path / "net.pth")
    assert str(raised.value).isprintable()


def test_an_archive_that_grows_when_unpacked_is_refused(tmp_path):
    with zipfile.ZipFile(io.BytesIO(torch_bytes({"a": torch.zeros(10**6)}))) as file:
        entries = {name: file.read(name) for name in file.namelist()}
    (tmp_path / "stored").write_bytes(archive(entries))
    assert read_weights_only(tmp_path / "stored")["a"].shape == (10**6,)
    (tmp_path / "bomb").write_bytes(archive(entries, zipfile.ZIP_DEFLATED))
    with pytest.raises(InputError, match=r"would grow from [\d,]+ to 4,0[\d,]+ bytes when unpacked"):
        read_weights_only(tmp_path / "bomb")


def nested_tuples(depth):
    """A state dict whose key is a tuple of ever longer tuples, of 2**depth items in a few bytes each."""
    steps = b"".join(b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(depth))
    return with_pickle(b"\x80\x02}()q\x00" + steps + b"tK\x01s.")


def test_a_key_that_takes_for_ever_to_hash_is_refused(tmp_path):
    (tmp_path / "short").write_bytes(nested_tuples(5))
    assert len(read_weights_only(tmp_path / "short")) == 1  # the file is what it is meant to be
    (tmp_path / "endless").write_bytes(nested_tuples(60))
    with pytest.raises(InputError, match=r"holds a tuple of more than 1,000 items"):
        read_weights_only(tmp_path / "endless")


def test_arrays_of_a_record_are_bounded_before_they_are_unpacked(tmp_path):
    for name, size in (("whole", MOST_OUTCOMES - 1_000), ("bomb", MOST_OUTCOMES + 1)):
        np.savez_compressed(tmp_path / f"{name}.npz", clean=np.zeros(size, dtype=bool))
        assert (tmp_path / f"{name}.npz").stat().st_size < size / 500
    assert read_arrays(tmp_path / "whole.npz")["clean"].shape == (MOST_OUTCOMES - 1_000,)
    assert read_arrays(tmp_path / "bomb.npz") is None


# --- ONNX files of this project with something added


def endless_loop():
    """A Loop whose condition stays true, without a bound on its number of rounds."""
    kinds = {"round": TensorProto.INT64, "condition": TensorProto.BOOL, "goes_on": TensorProto.BOOL}
    first, second, output = (helper.make_tensor_value_info(name, kind, []) for name, kind in kinds.items())
    goes_on = helper.make_node("Identity", ["condition"], ["goes_on"])
    body = helper.make_graph([goes_on], "body", [first, second], [output])
    return helper.make_node("Loop", ["", "true"], [], body=body)


def true():
    return helper.make_node("Constant", [], ["true"], value=helper.make_tensor("t", TensorProto.BOOL, [], [1]))


def with_a_branch(model):
    branch = helper.make_graph(
        [endless_loop(), helper.make_node("Identity", ["true"], ["same"])],
        "branch", [], [helper.make_tensor_value_info("same", TensorProto.BOOL, [])],
    )  # fmt: skip
    model.graph.node.extend([true(), helper.make_node("If", ["true"], ["x"], then_branch=branch, else_branch=branch)])


def with_a_function(model):
    function = helper.make_function(
        "", "Relu", ["true"], ["y"], [endless_loop(), helper.make_node("Identity", ["true"], ["y"])],
        [helper.make_opsetid("", 20)],
    )  # fmt: skip
    model.functions.append(function)


def with_sparse_weights(model):
    values = helper.make_tensor("values", TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor("indices", TensorProto.INT64, [1], [0])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [10**12]))


def with_a_constant_in_another_file(model):
    node = helper.make_node("Constant", [], ["x"], value=helper.make_tensor("elsewhere", TensorProto.FLOAT, [1], [1.0]))
    tensor = node.attribute[0].t
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/hostname")
    model.graph.node.append(node)


def with_a_huge_tensor(model):
    shape = onnx.numpy_helper.from_array(np.array([10**6, 10**6], dtype=np.int64), "shape")
    one = onnx.numpy_helper.from_array(np.ones(1, dtype=np.float32), "one")
    nodes = [helper.make_node("Constant", [], [item.name], value=item) for item in (shape, one)]
    nodes += [helper.make_node("Expand", ["one", "shape"], ["huge"]), helper.make_node("ReduceSum", ["huge"], ["sum"])]
    last = model.graph.node[-1]
    last.output[0] = "before"
    model.graph.node.extend([*nodes, helper.make_node("Add", ["before", "sum"], ["logits"])])


def with_nodes(*nodes):
    return lambda model: model.graph.node.extend(nodes)


def relu(output="x", **attributes):
    return helper.make_node("Relu", ["images"], [output], **attributes)


HOSTILE = {
    "a loop": (with_nodes(true(), endless_loop()), r"this one has 'Loop'"),
    "a loop in a branch": (with_a_branch, r"this one has 'If'"),
    "a graph in an operator": (
        with_nodes(relu(body=helper.make_graph([], "body", [], []))),
        r"this one has another graph inside",
    ),
    "a function": (with_a_function, r"this one has functions of its own"),
    "a foreign operator": (with_nodes(relu(domain="com.example")), r"this one has 'com\.example:Relu'"),
    "random numbers": (
        with_nodes(helper.make_node("RandomNormal", [], ["x"], shape=[10**6, 10**6])),
        r"this one has 'RandomNormal'",
    ),
    "sparse weights": (with_sparse_weights, r"this one has sparse weights"),
    "a constant in another file": (with_a_constant_in_another_file, r"'elsewhere' in another file"),
    "very many operators": (with_nodes(*(relu(f"x{i}") for i in range(1_000))), r"more than 8 operators per tensor"),
    "a huge tensor": (with_a_huge_tensor, r"an ONNX file that onnxruntime runs"),
}


@pytest.mark.parametrize(("add", "message"), HOSTILE.values(), ids=HOSTILE)
def test_onnx_files_that_compute_unpack_or_read_too_much_are_refused(add, message, exported, tmp_path):
    model = onnx.load(exported("onnx"))
    add(model)
    (tmp_path / "file").write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=message) as raised:
        open_checkpoint(tmp_path / "file")
    assert str(raised.value).isprintable()
