"""A network as one ONNX file: weights as initializers under our key names, the card as JSON in the metadata.

Needs the optional dependencies of the extra `onnx`, which are imported when a file is written or read.
"""

import io
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robust_arch import __version__
from robust_arch.architectures import Classifier, CustomArch
from robust_arch.errors import InputError, invalid
from robust_arch.interop.checkpoint import LoadedCheckpoint, restore
from robust_arch.interop.description import METADATA_KEY, from_json, to_json
from robust_arch.interop.foreign import CUT_OFF, printable

# of the networks here as torch and the usual simplifiers write them: no loops, branches, random numbers or tables
OPERATORS = frozenset(
    {
        "Add", "AveragePool", "BatchNormalization", "Cast", "CastLike", "Clip", "Concat", "Constant", "Conv",
        "Div", "Dropout", "Elu", "Erf", "Exp", "Expand", "Flatten", "Gather", "Gelu", "Gemm",
        "GlobalAveragePool", "Greater", "HardSigmoid", "Identity", "LayerNormalization", "LeakyRelu", "Log",
        "MatMul", "MaxPool", "Max", "Min", "Mish", "Mul", "Neg", "Pad", "Pow", "PRelu", "ReduceMean", "ReduceSum",
        "Relu", "Reshape", "Shape", "Sigmoid", "Slice", "Softplus", "Sqrt", "Squeeze", "Sub", "Tanh", "Transpose",
        "Unsqueeze", "Where",
    }
)  # fmt: skip
_MOST_NODES = 8  # per tensor of weights: torch leaves 2 to 3
_MOST_MEMORY = 4 * 2**30  # bytes for the runtime and the features of a few images
_COPIES = 8  # of the weights: as read, as parsed, and as the runtime rearranges them
_MOST_SECONDS = 300  # for a few images, which take the largest network here some 20
_MOST_NUMBERS = 2**24  # in all probe images together: five of 1,000 x 1,000 pixels in colour
TOLERANCE = 1e-4  # of the largest logit: float32 sums in another order differ by some 1e-6 per layer


def probe_images(image_shape: Sequence[int], count: int) -> Tensor:
    """Images on which two forms of a network are compared: (count, C, H, W), uniform in [0, 1], always the same.

    Of very large images there are two.
    """
    if count * math.prod(image_shape) > _MOST_NUMBERS:
        count = 2
    return torch.rand(count, *image_shape, generator=torch.Generator().manual_seed(0))


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise InputError(
            f"ONNX files need the package {name}: install the extra `onnx`, like pip install 'robust-arch[onnx]'"
        ) from None


def write_onnx(loaded: LoadedCheckpoint, path: Path) -> None:
    """Write the network from images (batch, C, H, W) in [0, 1] to logits (batch, K), for batches of any size.

    Nothing is folded or fused, so that the file holds every weight as it is; only the counts of batches, which do not
    enter the logits, are left out.
    """
    onnx = _package("onnx")
    _package("onnxscript")
    _package("onnxruntime")  # needed to read the file back: better missed now than after the work
    # two images: from one image torch concludes that batches always have one
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
    graph = model.graph
    for item in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        del item.metadata_props[:]  # torch's notes hold stack traces with paths of this machine
    model.producer_name, model.producer_version = "robust_arch", __version__
    onnx.helper.set_model_props(model, {METADATA_KEY: to_json(loaded.card)})
    path.write_bytes(model.SerializeToString())


def read_onnx(path: Path, own: CustomArch | None = None) -> LoadedCheckpoint:
    """The network in a file of `write_onnx`, after checking that the file itself computes the same logits.

    own: as for `restore`.

    Raises:
        InputError: for a file that is cut off or was not exported by this project, operators that no classifier needs,
            weights that do not fit the card, or a graph that computes anything but the card's network.
    """
    onnx = _package("onnx")
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except Exception:  # a damaged file can make the parser raise anything
        raise invalid("checkpoint", str(path), f"a whole ONNX file; this one {CUT_OFF}") from None
    card = from_json({item.key: item.value for item in model.metadata_props}, str(path))
    if fault := next(_faults(model), None):
        allowed = "an ONNX file of one graph of a classifier's operators with its weights"
        raise invalid("checkpoint", str(path), f"{allowed}; this one has {fault}")
    try:
        tensors = {
            item.name: torch.from_numpy(np.array(onnx.numpy_helper.to_array(item))) for item in model.graph.initializer
        }
    except Exception:  # a tensor whose parts do not fit can make the reader raise anything
        raise invalid("checkpoint", str(path), "an ONNX file whose tensors are whole") from None
    loaded = restore(card, tensors, str(path), own=own)
    _require_same_function(loaded.net, probe_images(card["image_shape"], 5), path)
    return loaded


def _faults(model: Any) -> Iterator[str]:
    """What could make a file compute without end, unpack, or read other files; to be checked before computing."""
    graph = model.graph
    forbidden = {
        f"more than {_MOST_NODES} operators per tensor of weights": (
            len(graph.node) > _MOST_NODES * max(1, len(graph.initializer))
        ),
        "functions of its own": model.functions,
        "graphs for training": model.training_info,
        "sparse weights": graph.sparse_initializer,
    }
    yield from (what for what, found in forbidden.items() if found)
    tensors = list(graph.initializer)
    for node in graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS:
            yield repr(printable(f"{node.domain}:{node.op_type}" if node.domain else node.op_type))
        for item in node.attribute:
            if item.HasField("g") or item.graphs:
                yield "another graph inside"
            tensors += (item.t, *item.tensors)
            for sparse in (item.sparse_tensor, *item.sparse_tensors):
                tensors += (sparse.values, sparse.indices)
    for item in tensors:
        if item.data_location or item.external_data:
            yield f"{printable(item.name)!r} in another file"


def _logits(path: Path, images: Tensor) -> np.ndarray:
    """The logits that the file computes, by onnxruntime in a process of its own with limited memory and time."""
    _package("onnxruntime")
    given = io.BytesIO()
    np.save(given, images.numpy())
    most = _MOST_MEMORY + _COPIES * path.stat().st_size
    command = [sys.executable, "-P", str(Path(__file__).with_name("onnx_process.py")), str(path), str(most)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # their stacks count as memory
    try:
        done = subprocess.run(
            command, input=given.getvalue(), capture_output=True, timeout=_MOST_SECONDS, check=False, env=environment
        )
    except subprocess.TimeoutExpired:
        reason = f"it was still computing after {_MOST_SECONDS} s"
    else:
        if done.returncode == 0:
            logits: np.ndarray = np.load(io.BytesIO(done.stdout), allow_pickle=False)
            return logits
        reason = printable((done.stderr.decode(errors="replace").splitlines() or ["it ran out of memory"])[-1])
    raise invalid("checkpoint", str(path), f"an ONNX file that onnxruntime runs ({reason})")


def _require_same_function(net: Classifier, images: Tensor, path: Path) -> None:
    """Raise InputError unless the file, run by onnxruntime, gives the logits of `net` within TOLERANCE."""
    logits, file = _logits(path, images), f"checkpoint = {str(path)!r}"
    with torch.no_grad():
        expected = net(images).numpy()
    if logits.shape != expected.shape:
        raise InputError(f"{file}: its graph gives logits of shape {logits.shape}, not {expected.shape}")
    difference, allowed = np.abs(logits - expected).max(), TOLERANCE * max(1.0, float(np.abs(expected).max()))
    if not difference <= allowed:
        raise InputError(
            f"{file}: its graph does not compute what its weights do in the architecture it names; logits differ by "
            f"{difference:.3g}, allowed is {allowed:.3g}"
        )
