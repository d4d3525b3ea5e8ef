"""Weights into a network with every tensor accounted for."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from robust_arch.architectures import ArchSpec
from robust_arch.errors import InputError

log = logging.getLogger(__name__)

_SHOWN = 3  # differences that an error names: the first say what is wrong, all of them would be pages


def _is_count(key: str) -> bool:
    """Whether the tensor counts batches: evaluation does not read it, and files of early torch do not hold it."""
    return key.endswith(".num_batches_tracked")


def _wrong_tensor(name: str, value: Any, expected: Tensor) -> str:
    """What is wrong with a file's tensor; empty if nothing is. expected: of the shape and kind it must have."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized or value.is_meta:
        return f"{name!r} is no plain tensor"
    if _is_count(name):  # averaged weights come with averaged counts
        return "" if value.numel() == 1 and not value.is_complex() else f"{name!r} is no single number"
    if value.shape != expected.shape:
        return f"{name!r} has shape {tuple(value.shape)}, not {tuple(expected.shape)}"
    if value.is_floating_point() != expected.is_floating_point() or value.is_complex():
        return f"{name!r} holds {value.dtype}, not {expected.dtype}"
    return ""


def _differences(expected: Mapping[str, Tensor], found: Mapping[str, Any]) -> list[str]:
    """How a file's tensors differ from what a network needs, both under the file's names."""
    missing = [f"missing key {name!r}" for name in expected if name not in found and not _is_count(name)]
    unknown = [f"unknown key {name!r}" for name in found if name not in expected]
    wrong = [_wrong_tensor(name, found[name], expected[name]) for name in expected if name in found]
    return [*missing, *unknown, *filter(None, wrong)]


def load_strictly(
    network: nn.Module, found: Mapping[str, Any], spec: ArchSpec, name: Callable[[str], str] = str
) -> None:
    """Give `network` the tensors of a file: all its own, and no others, in float32.

    found: tensors under the file's names. name: from a key of the network to the file's. Other floating-point types
    are converted. Counts of batches, which evaluation does not read, may be missing.

    Raises:
        InputError: naming the first keys that are missing, unknown or of another shape, or a tensor that is not finite.
    """
    state = network.state_dict()
    names = {name(key): key for key in state}
    if differences := _differences({file: state[key] for file, key in names.items()}, found):
        raise InputError(
            f"checkpoint: the weights are not of the architecture {spec.family}, depths {spec.depths}, widths "
            f"{spec.widths}, stem_width {spec.stem_width}: {'; '.join(differences[:_SHOWN])}"
            + (f"; and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else "")
        )
    for file, key in names.items():
        if file in found:
            value = found[file].detach().to("cpu")
            state[key] = value.reshape(state[key].shape).to(state[key].dtype)
            if not bool(torch.isfinite(value.float()).all()):
                raise InputError(f"checkpoint: {file!r} is not finite in float32; such weights have no logits")
    others = {str(found[file].dtype) for file, key in names.items() if file in found and not _is_count(key)}
    if others - {"torch.float32"}:
        log.info("weights in %s are read as float32", ", ".join(sorted(others - {"torch.float32"})))
    network.load_state_dict(state, strict=True)
