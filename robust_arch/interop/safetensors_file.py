"""A network as one safetensors file: weights under our key names, the card as JSON in the header."""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from robust_arch.architectures import CustomArch
from robust_arch.errors import invalid
from robust_arch.interop.checkpoint import LoadedCheckpoint, restore
from robust_arch.interop.description import METADATA_KEY, from_json, to_json
from robust_arch.interop.foreign import CUT_OFF


def write_safetensors(loaded: LoadedCheckpoint, path: Path) -> None:
    """Write the network with its normalisation; nothing in the file can be executed."""
    weights = {key: value.contiguous() for key, value in loaded.net.state_dict().items()}
    path.write_bytes(save(weights, metadata={METADATA_KEY: to_json(loaded.card), "format": "pt"}))


def read_safetensors(path: Path, own: CustomArch | None = None) -> LoadedCheckpoint:
    """The network in a file of `write_safetensors`; raises InputError for any other file. own: as for `restore`."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # it is no mapping
    except SafetensorError:  # its message may repeat what the file holds
        raise invalid("checkpoint", str(path), f"a whole safetensors file; this one {CUT_OFF}") from None
    return restore(from_json(metadata, str(path)), tensors, str(path), own=own)
