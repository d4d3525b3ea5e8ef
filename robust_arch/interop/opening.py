"""Opening a checkpoint of any kind, recognised by its content."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from robust_arch.architectures import ArchSpec, CustomArch, ImageShape
from robust_arch.architectures.family import DEFAULT_FAMILY
from robust_arch.errors import invalid
from robust_arch.interop.checkpoint import LoadedCheckpoint, read_checkpoint
from robust_arch.interop.onnx_file import read_onnx
from robust_arch.interop.published import read_own, read_published
from robust_arch.interop.reading import read_weights_only, require_file
from robust_arch.interop.safetensors_file import read_safetensors


def open_checkpoint(
    path: str | Path,
    arch: Mapping[str, Any] | CustomArch | None = None,
    task: Callable[[], tuple[int, ImageShape]] | None = None,
    weights: str | None = None,
) -> LoadedCheckpoint:
    """The network in a file: a checkpoint of this project, an export of one, or a published torch file.

    arch: fields of the architecture. A published file needs them; every other file holds its own, with which these
    must agree. A network of the user's own is needed for every file of it. The card of a published file is empty.
    task: number of classes and shape of images (C, H, W), for a state dict of a network of the user's own.
    weights: raw, ema or swa; None for those that decided the best epoch of the training, or the only ones in the file.

    Raises:
        InputError: for a missing or damaged file, one that would run code, weights that do not fit the architecture or
            are not in the file, or an architecture that is missing or contradicts the file.
    """
    path, own = Path(path), arch if isinstance(arch, CustomArch) else None
    given = {} if isinstance(arch, CustomArch) else dict(arch or {})
    require_file(path)
    with path.open("rb") as file:
        head = file.read(9)
    if head[4:] == b"\0\0\0\0{":  # the length of a JSON header in 8 bytes, of which the last are 0, and the header
        loaded = read_safetensors(path, own)
    elif head[:1] == b"\x08":  # field 1, the version of the format, with which every ONNX file starts
        loaded = read_onnx(path, own)
    elif "card" in (content := read_weights_only(path)):
        loaded = read_checkpoint(content, str(path), weights, own)
    elif own is not None:
        loaded = read_own(content, own, task)
    elif {"depths", "widths"} <= set(given):
        loaded = read_published(content, ArchSpec.from_dict({"family": DEFAULT_FAMILY, **given}))[0]
        given = {}  # the file names no architecture that these could contradict
    else:
        raise invalid("arch", given or None, "the architecture of a published checkpoint, like arch=wrn_34_r")
    if weights not in (None, loaded.weights):
        raise invalid("weights", weights, f"{loaded.weights}, the only ones that {path} holds")
    found = loaded.spec.to_dict()
    if {**found, **{key: list(value) if isinstance(value, tuple) else value for key, value in given.items()}} != found:
        raise invalid("arch", given, f"nothing, or the checkpoint's own architecture, {found}")
    return loaded
