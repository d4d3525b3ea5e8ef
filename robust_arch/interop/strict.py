"""Loading weights into a network with every tensor accounted for."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from robust_arch.architectures import AnyArch
from robust_arch.errors import InputError
from robust_arch.interop.sizes import misfit

log = logging.getLogger(__name__)

_SHOWN = 3  # differences that an error names: the first show what is wrong, all of them would fill pages


def load_strictly(
    network: nn.Module, found: Mapping[str, Any], spec: AnyArch, name: Callable[[str], str] = str
) -> None:
    """Load a file's tensors into `network`, in float32: all of its own, and no others.

    found: tensors under the file's names. name: from a key of the network to the file's. Other floating-point types
    are converted. Counts of batches, which evaluation does not read, may be missing.

    Raises:
        InputError: naming the first keys that are missing, unknown or of another shape, or a tensor that is not finite.
    """
    state = network.state_dict()
    names = {name(key): key for key in state}
    missing = [f"missing key {file!r}" for file in names if file not in found and not _is_count(file)]
    unknown = [f"unknown key {file!r}" for file in found if file not in names]
    wrong = [_difference(file, found[file], state[key]) for file, key in names.items() if file in found]
    if differences := [*missing, *unknown, *filter(None, wrong)]:
        more = f"; and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
        raise InputError(f"{misfit(spec)}: {'; '.join(differences[:_SHOWN])}{more}")
    converted = set()
    for file, key in names.items():
        if file in found:
            value = found[file].detach().to("cpu")
            state[key] = value.reshape(state[key].shape).to(state[key].dtype)
            if not bool(torch.isfinite(value.float()).all()):
                raise InputError(f"checkpoint: {file!r} is not finite in float32; such weights have no logits")
            if value.dtype != torch.float32 and not _is_count(file):
                converted.add(str(value.dtype))
    if converted:
        log.info("weights in %s are read as float32", ", ".join(sorted(converted)))
    network.load_state_dict(state, strict=True)


def _is_count(key: str) -> bool:
    """Whether the tensor counts batches: evaluation does not read it, and files of early torch do not hold it."""
    return key.endswith(".num_batches_tracked")


def _difference(name: str, value: Any, expected: Tensor) -> str:
    """How a file's tensor differs from the shape and kind that it must have; empty if it does not."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized or value.is_meta:
        return f"{name!r} is no plain tensor"
    if _is_count(name):  # averaged weights come with averaged counts
        return "" if value.numel() == 1 and not value.is_complex() else f"{name!r} is no single number"
    if value.shape != expected.shape:
        return f"{name!r} has shape {tuple(value.shape)}, not {tuple(expected.shape)}"
    if value.is_floating_point() != expected.is_floating_point() or value.is_complex():
        return f"{name!r} holds {value.dtype}, not {expected.dtype}"
    return ""
