"""The pickle in which 500,000 pseudo-labelled images are published, read without running what it may name."""

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robust_arch.data.extra import ExtraData
from robust_arch.errors import InputError

_ALLOWED = "a pickle of a dictionary with data, (N, H, W, C) uint8, and extrapolated_targets, (N,) integers"
_NUMBERS = frozenset("biuf")  # kinds of dtype: booleans, integers and floats


@dataclass(frozen=True, kw_only=True)
class PseudoLabels(ExtraData):
    """A pickle with `data` and `extrapolated_targets` (Carmon et al. 2019), whole in memory; other keys are ignored."""

    def read(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels; the pickle can build arrays of numbers and plain values, and nothing else."""
        try:
            with path.open("rb") as handle:
                content = _ArrayUnpickler(handle).load()
            if not isinstance(content, dict):
                raise ValueError(f"it holds a {type(content).__name__}")
            images, labels = (_array(content, key) for key in ("data", "extrapolated_targets"))
            if images.dtype != np.uint8 or images.ndim != 4:
                raise ValueError(f"data is {images.dtype} of shape {images.shape}")
            if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
                raise ValueError(f"extrapolated_targets is {labels.dtype} of shape {labels.shape}")
        except InputError:
            raise
        except Exception as error:  # a damaged pickle can raise anything
            raise self.refused(error or type(error).__name__, _ALLOWED) from None
        return images, labels


def _array(content: dict[Any, Any], key: str) -> np.ndarray:
    """The array, or list of integers, of a key."""
    if key not in content:
        raise ValueError(f"there is no {key}")
    value = content[key]
    if isinstance(value, _Array) and value.content is not None:
        return value.content
    if isinstance(value, list) and all(type(each) is int for each in value):
        return np.array(value, dtype=np.int64)
    raise ValueError(f"{key} is no array of numbers")


class _ArrayUnpickler(pickle.Unpickler):
    """Gives every name in a pickle a stand-in of this module, so that no function of another module is called.

    The names are those by which Python 2 and 3 and numpy 1 and 2 write an array of numbers.
    """

    def __init__(self, handle: Any) -> None:
        super().__init__(handle, encoding="latin1")  # text of Python 2: the bytes of an array

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in; raises UnpicklingError for any other name."""
        module = module.replace("numpy._core", "numpy.core")
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is no part of an array of numbers")
        return _Call(_STAND_INS[module, name])


class _Inert:
    """An object that a pickle can hold and do nothing to: it has no attributes to set."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError(f"it sets the state of a {type(self).__name__.strip('_')}")


class _Call(_Inert):
    """A function that a pickle names and calls."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)


class _Dtype(_Inert):
    """A type of numbers: numpy's own would take any state."""

    __slots__ = ("dtype",)

    def __init__(self, name: Any, *_flags: Any) -> None:
        dtype = np.dtype(name) if type(name) is str and len(name) <= 3 else None
        if dtype is None or dtype.kind not in _NUMBERS:
            kind = name[:20] if type(name) is str else type(name).__name__  # a repr could be endless
            raise pickle.UnpicklingError(f"an array of {kind}, not of numbers")
        self.dtype = dtype

    def __setstate__(self, state: Any) -> None:
        """Take the byte order: (version, order, and nothing else for a type of numbers)."""
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ("|", "<", ">", "=") or any(state[2:5]):
            raise pickle.UnpicklingError("a type with fields or parts, not of numbers")
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(_Inert):
    """An array: empty as it is made, filled by its state."""

    __slots__ = ("content",)

    def __init__(self, *_arguments: Any) -> None:
        self.content: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        """Take (version, shape, type, whether in Fortran order, bytes)."""
        _, shape, dtype, fortran, content = state
        self.fill(content, dtype, shape, "F" if fortran is True else "C")

    def fill(self, content: Any, dtype: Any, shape: Any, order: Any) -> None:
        """Set the content; raises UnpicklingError unless it has exactly the entries of the shape."""
        if isinstance(content, str):
            content = content.encode("latin1")
        if not isinstance(dtype, _Dtype) or not isinstance(content, bytes | bytearray) or not isinstance(shape, tuple):
            raise pickle.UnpicklingError("an array that is not made of bytes")
        self.content = np.frombuffer(content, dtype.dtype).reshape(shape, order=order)


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    """An array as pickles of protocol 5 hold it."""
    array = _Array()
    array.fill(content, dtype, shape, order)
    return array


def _encode(text: Any, encoding: Any) -> bytes:
    """Bytes as Python 3 writes them for Python 2."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("an encoding that is not latin1")
    return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encode,
}
