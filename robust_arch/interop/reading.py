"""Reading checkpoint files without executing anything in them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from robust_arch.errors import InputError, invalid
from robust_arch.interop.foreign import describe_endless, describe_foreign, describe_refused

# the published cosine rule leaves numpy scalars in optimizer states; these types and no others are allowed
_NUMPY_TYPES: list[Any] = [
    np._core.multiarray.scalar,  # type: ignore[attr-defined]
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),  # type: ignore[attr-defined]  # before numpy 2
    np.dtype,
    *{type(np.dtype(name)) for name in ("float16", "float32", "float64", "int32", "int64", "uint8", "bool")},
]


def require_file(path: Path) -> None:
    """Raise InputError unless there is such a file."""
    if path.is_dir():
        raise invalid("checkpoint", str(path), "a file, not a folder")
    if not path.is_file():
        raise InputError(f"checkpoint = {str(path)!r}: no such file")


def read_weights_only(path: str | Path) -> dict[str, Any]:
    """The dictionary in a torch file: tensors and plain values.

    Raises:
        InputError: if there is no such file, it is of another format, cut off, or larger when unpacked than a torch
            file can be, or it holds anything that would have to be executed.
    """
    path = Path(path)
    require_file(path)
    if not (fault := describe_foreign(path) or describe_endless(path)):
        try:
            with torch.serialization.safe_globals(_NUMPY_TYPES):
                content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception:  # a damaged file can raise anything; torch's message recommends to trust the file
            fault = describe_refused(path)
    if fault:
        raise invalid("checkpoint", str(path), f"a torch file of tensors and plain values; this one {fault}")
    if not isinstance(content, dict):
        raise invalid("checkpoint", str(path), f"a dictionary of tensors; found {type(content).__name__}")
    return content


def require_free(out: Path, source: Path, *, force: bool) -> None:
    """Raise InputError if writing `out` would replace the file that is read, or without `force` any file."""
    if out.exists() and source.exists() and out.samefile(source):
        raise invalid("out", str(out), "another file than the one that is read")
    if out.is_dir():
        raise invalid("out", str(out), "a file, not a folder")
    if out.exists() and not force:
        raise invalid("out", str(out), "a file that does not exist yet; --force replaces it")
