"""A network as one ONNX file: weights as initializers under our key names, the card as JSON in the metadata.

Needs the optional dependencies of the extra `onnx`, which are imported when a file is written or read.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robust_arch import __version__
from robust_arch.architectures import Classifier
from robust_arch.errors import InputError
from robust_arch.interop.checkpoint import LoadedCheckpoint, restore
from robust_arch.interop.description import METADATA_KEY, from_json, to_json
from robust_arch.interop.probe import probe_images

TOLERANCE = 1e-4  # of the largest logit: float32 sums in another order differ by some 1e-6 a layer


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise InputError(
            f"ONNX files need the package {name}: install the extra `onnx`, like pip install 'robust-arch[onnx]'"
        ) from None


def write_onnx(loaded: LoadedCheckpoint, path: Path) -> None:
    """Write the network from images (batch, C, H, W) in [0, 1] to logits (batch, K), the batch of any size.

    Nothing is folded or fused, so that every weight stands in the file as it is; only the counts of batches, which
    take no part in the logits, are left out.
    """
    onnx = _package("onnx")
    _package("onnxscript")
    _package("onnxruntime")  # reading back needs it: say so before the work
    # two images: of one image torch concludes that batches always have one
    program = torch.onnx.export(
        loaded.net,
        (probe_images(loaded.card["image_shape"], 2),),
        dynamo=True,
        optimize=False,
        verbose=False,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )
    model = program.model_proto  # type: ignore[union-attr]  # with dynamo there is a program
    _forget_where_it_was_made(model)
    model.producer_name, model.producer_version = "robust_arch", __version__
    onnx.helper.set_model_props(model, {METADATA_KEY: to_json(loaded.card)})
    path.write_bytes(model.SerializeToString())


def _forget_where_it_was_made(model: Any) -> None:
    """Drop torch's notes, which hold stack traces with the paths of this machine."""
    graph = model.graph
    for item in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        del item.metadata_props[:]


def read_onnx(path: Path) -> LoadedCheckpoint:
    """The network in a file of `write_onnx`, once its logits are those that the file itself computes.

    Raises:
        InputError: for a file that is cut off, was not exported by this project, whose weights do not fit its card, or
            whose graph computes something else than the network of its card with its weights.
    """
    content = path.read_bytes()
    onnx = _package("onnx")
    try:
        model = onnx.load_model_from_string(content)
        tensors = {item.name: _tensor(onnx, item) for item in model.graph.initializer}
    except Exception as error:  # whatever a broken file makes the parser trip over
        raise InputError(f"checkpoint = {str(path)!r}: a whole ONNX file ({_reason(error)})") from None
    card = from_json({item.key: item.value for item in model.metadata_props}, str(path))
    loaded = restore(card, tensors, str(path))
    _require_same_function(loaded.net, probe_images(card["image_shape"], 5), content, str(path))
    return loaded


def _tensor(onnx: Any, item: Any) -> Tensor:
    if item.data_location == onnx.TensorProto.EXTERNAL:
        raise ValueError(f"{item.name} is in another file")
    return torch.from_numpy(np.array(onnx.numpy_helper.to_array(item)))


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _require_same_function(net: Classifier, images: Tensor, content: bytes, path: str) -> None:
    """Raise InputError unless the file, run by onnxruntime, gives the logits of `net` within TOLERANCE."""
    runtime = _package("onnxruntime")
    try:
        session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
        (logits,) = session.run(["logits"], {"images": images.numpy()})
    except Exception as error:  # the runtime has an exception class of its own for each failure
        raise InputError(f"checkpoint = {path!r}: an ONNX file that onnxruntime runs ({_reason(error)})") from None
    with torch.no_grad():
        expected = net(images).numpy()
    if logits.shape != expected.shape:
        raise InputError(f"checkpoint = {path!r}: its graph gives logits of shape {logits.shape}, not {expected.shape}")
    difference, allowed = np.abs(logits - expected).max(), TOLERANCE * max(1.0, float(np.abs(expected).max()))
    if not difference <= allowed:
        raise InputError(
            f"checkpoint = {path!r}: its graph does not compute what its weights do in the architecture it names; "
            f"logits differ by {difference:.3g}, allowed is {allowed:.3g}"
        )
