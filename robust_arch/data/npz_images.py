"""Images and labels in an .npz file, the layout in which generated sets are published, mapped where they lie."""

import hashlib
import shutil
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robust_arch.common.files import replacing
from robust_arch.data.extra import ExtraData, MappedArray
from robust_arch.errors import InputError

_ALLOWED = "an .npz file with image, (N, H, W, C) uint8, and label, (N,) integers"
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a zip member: signature, lengths of its name and of its extra field
_CHUNK = 2**20


@dataclass(frozen=True)
class _Member:
    """An array in a zip file.

    Attributes:
        info: the zip file's entry.
        shape: of the array.
        dtype: of the array.
        header: number of bytes before its content.
    """

    info: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    header: int


@dataclass(frozen=True, kw_only=True)
class NpzImages(ExtraData):
    """An .npz file with `image` and `label`; images are mapped and never all in memory.

    Attributes:
        cache: folder into which the images of a compressed file are unpacked once; None refuses such a file.
    """

    cache: str | None = None

    def read(self, path: Path) -> tuple[MappedArray, np.ndarray]:
        """Images mapped from the file itself, or from the cache; labels in memory."""
        try:
            with zipfile.ZipFile(path) as archive:
                image, label = (_member(archive, f"{name}.npy") for name in ("image", "label"))
                if image.dtype != np.uint8 or len(image.shape) != 4:
                    raise ValueError(f"image is {image.dtype} of shape {image.shape}")
                if label.dtype.kind not in "iu" or label.shape != image.shape[:1]:
                    raise ValueError(f"label is {label.dtype} of shape {label.shape}, image of shape {image.shape}")
                with archive.open(label.info) as handle:
                    labels: np.ndarray = np.lib.format.read_array(handle, allow_pickle=False)
                return self._mapped(archive, image, path), labels
        except InputError:
            raise
        except Exception as error:  # zipfile and numpy raise a dozen kinds for a damaged file
            raise self.refused(error or type(error).__name__, _ALLOWED) from None

    def _mapped(self, archive: zipfile.ZipFile, image: _Member, path: Path) -> MappedArray:
        if image.info.compress_type == zipfile.ZIP_STORED:
            return MappedArray(path, _content_start(path, image.info) + image.header, image.shape)
        size = image.info.file_size
        if self.cache is None:
            allowed = "an uncompressed file, as np.savez writes, or extra.cache=<folder> with room for its images"
            raise self.refused(f"unpacked once into that folder, they take {size / 2**30:,.1f} GiB", allowed)
        folder = Path(self.cache).expanduser()
        stat = path.stat()
        identity = repr((image.info.CRC, size, stat.st_size, stat.st_mtime_ns))
        cached = folder / f"{path.stem}-{hashlib.blake2b(identity.encode(), digest_size=6).hexdigest()}.npy"
        if not cached.is_file() or cached.stat().st_size != size:
            folder.mkdir(parents=True, exist_ok=True)
            if (free := shutil.disk_usage(folder).free) < size:
                needed = f"a folder with room for {size / 2**30:,.1f} GiB; it has {free / 2**30:,.1f}"
                raise InputError(f"extra.cache = {self.cache!r}: expected {needed}")
            with replacing(cached) as temporary, temporary.open("wb") as target, archive.open(image.info) as source:
                shutil.copyfileobj(source, target, _CHUNK)  # zipfile compares the checksum at the end
        return MappedArray(cached, image.header, image.shape)


def _member(archive: zipfile.ZipFile, name: str) -> _Member:
    """The form of an array, from its header; raises ValueError or KeyError if it cannot be mapped."""
    info = archive.getinfo(name)
    with archive.open(info) as handle:
        shape, fortran, dtype = _HEADERS[np.lib.format.read_magic(handle)](handle)
        header = handle.tell()
    if fortran:
        raise ValueError(f"{name} is in Fortran order")
    if dtype.hasobject or info.file_size != header + dtype.itemsize * int(np.prod(shape, dtype=object)):
        raise ValueError(f"{name} holds objects, or not the {shape} entries that its header names")
    return _Member(info, shape, dtype, header)


def _content_start(path: Path, info: zipfile.ZipInfo) -> int:
    """Where the content of a stored member begins in the zip file."""
    with path.open("rb") as handle:
        handle.seek(info.header_offset)
        signature, name, extra = _LOCAL_HEADER.unpack(handle.read(_LOCAL_HEADER.size))
    start: int = info.header_offset + _LOCAL_HEADER.size + name + extra
    if signature != b"PK\x03\x04" or start + info.file_size > path.stat().st_size:
        raise ValueError(f"{info.filename} is cut short")
    return start
