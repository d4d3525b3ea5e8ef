"""Opening a checkpoint of any kind, recognised by its content."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from robust_arch.architectures import ArchSpec
from robust_arch.architectures.family import DEFAULT_FAMILY
from robust_arch.errors import invalid
from robust_arch.interop.checkpoint import LoadedCheckpoint, read_checkpoint
from robust_arch.interop.foreign import looks_like_safetensors
from robust_arch.interop.onnx_file import read_onnx
from robust_arch.interop.published import read_published
from robust_arch.interop.reading import read_weights_only, require_file
from robust_arch.interop.safetensors_file import read_safetensors


def open_checkpoint(path: str | Path, arch: Mapping[str, Any] | None = None) -> LoadedCheckpoint:
    """The network in a file: a checkpoint of this project, an export of one, or a published torch file.

    arch: fields of the architecture. A published file needs them; every other file carries them, and those given
    must agree. The card of a published file is empty.

    Raises:
        InputError: for a missing or broken file, one that would run code, weights that do not fit the architecture, or
            an architecture that is missing or contradicts the file.
    """
    path, given = Path(path), dict(arch or {})
    require_file(path)
    if reader := _reader(path):
        loaded = reader(path)
    else:
        content = read_weights_only(path)
        if "card" not in content:
            return _open_published(content, given)
        loaded = read_checkpoint(content, str(path))
    own = loaded.spec.to_dict()
    if {**own, **{key: list(value) if isinstance(value, tuple) else value for key, value in given.items()}} != own:
        raise invalid("arch", given, f"nothing, or the checkpoint's own architecture, {own}")
    return loaded


def _reader(path: Path) -> Callable[[Path], LoadedCheckpoint] | None:
    """The reader of the file, by its first bytes; None for a torch file."""
    with path.open("rb") as file:
        head = file.read(9)
    if looks_like_safetensors(head):
        return read_safetensors
    if head[:1] == b"\x08":  # field 1, the version of the format, with which every ONNX file starts
        return read_onnx
    return None


def _open_published(content: Mapping[str, Any], given: Mapping[str, Any]) -> LoadedCheckpoint:
    if not {"depths", "widths"} <= set(given):
        raise invalid("arch", dict(given) or None, "the architecture of a published checkpoint, like arch=wrn_34_r")
    spec = ArchSpec.from_dict({"family": DEFAULT_FAMILY, **given})
    published = read_published(content, spec)
    return LoadedCheckpoint(published.net, spec, {}, published.carried)
