"""Images in folders, root/{train,test}/<class>/<file>, decoded once into a cache outside the root."""

import hashlib
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from robust_arch.data.dataset import Dataset
from robust_arch.data.images import ImageSet
from robust_arch.data.memory import require_memory
from robust_arch.errors import InputError, invalid
from robust_arch.files import replacing
from robust_arch.paths import cache_dir

log = logging.getLogger(__name__)

# what is decoded, whatever a file is called: of the other formats of pillow, some run programs
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF", "GIF")
EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif"})
PARTS = ("train", "test")
_MODES = {1: "L", 3: "RGB"}


@dataclass(frozen=True, kw_only=True)
class ImageFolder(Dataset):
    """Classes are the folder names, sorted; the same in train and test.

    root: the folder. image_size: side of the square images; where files differ from it, the shorter side is resized
    and the centre cropped; None takes the files' own size, which must be one.
    channels: 3 (RGB) or 1 (grey). cache: folder for decoded arrays, by default the user's cache folder.
    """

    root: str | None
    image_size: int | None = None
    channels: int = 3
    cache: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.root is None:
            raise invalid("data.root", None, "the folder that holds train/<class>/ and test/<class>/")
        if self.channels not in _MODES:
            raise invalid("data.channels", self.channels, "3 (RGB) or 1 (grey)")
        if self.image_size is not None and self.image_size < 1:
            raise invalid("data.image_size", self.image_size, "at least 1, or null for the files' own size")

    def as_recorded(self) -> "ImageFolder":
        """With the user's own cache folder; the images are read from the root that the file names."""
        return replace(self, cache=None)

    def read(self) -> tuple[ImageSet, ImageSet]:
        """Both parts, from the cache where no file has changed since."""
        root = self._folder()
        classes = _class_names(root)
        train, test = (self._read_part(root, part, classes) for part in PARTS)
        if train.image_shape != test.image_shape:
            raise invalid(
                "data.image_size",
                self.image_size,
                f"a size to resize to, as train has {train.image_shape} and test {test.image_shape}",
            )
        return train, test

    def _folder(self) -> Path:
        # pathlib's expanduser raises for an unknown user
        given = Path(os.path.expanduser(str(self.root)))  # noqa: PTH111
        try:
            return given.resolve()
        except RuntimeError as error:  # links in a circle
            raise invalid("data.root", str(given), f"a folder ({error})") from None

    def _read_part(self, root: Path, part: str, classes: list[str]) -> ImageSet:
        files = _list_files(root / part, classes)
        labels = torch.tensor([label for _, label in files])
        images = self._cached_decode(root, [path for path, _ in files])
        return ImageSet(torch.from_numpy(images), labels, num_classes=len(classes))

    def _cached_decode(self, root: Path, paths: list[Path]) -> np.ndarray:
        """(N, C, H, W) uint8; the cache's name is a digest of every file's path, size and time of change."""
        digest = hashlib.blake2b(repr((str(root), self.image_size, self.channels)).encode(), digest_size=12)
        for path in paths:
            stat = path.stat()
            digest.update(f"{path.relative_to(root)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        folder = Path(self.cache).expanduser() if self.cache else cache_dir() / "image_folder"
        cached = folder / f"{digest.hexdigest()}.npy"
        if cached.is_file():
            arrays: np.ndarray = np.load(cached, allow_pickle=False)
            return arrays
        log.info("decoding %d images of %s once into %s", len(paths), root, cached)
        images = self._decode_all(paths)
        with replacing(cached) as temporary, temporary.open("wb") as handle:
            np.save(handle, images)
        return images

    def _decode_all(self, paths: list[Path]) -> np.ndarray:
        if self.image_size is not None:
            size = len(paths) * self.channels * self.image_size**2
            require_memory("data.image_size", self.image_size, size)
        first = self._decode(paths[0])
        require_memory("data.root", str(self.root), len(paths) * first.nbytes)
        images = np.empty((len(paths), *first.shape), dtype=np.uint8)

        def put(position: int) -> None:
            image = self._decode(paths[position])
            if image.shape != first.shape:
                raise invalid(
                    "data.image_size",
                    self.image_size,
                    f"a size to resize to, as {paths[0]} is {first.shape[1:]} and {paths[position]} {image.shape[1:]}",
                )
            images[position] = image

        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            list(pool.map(put, range(len(paths)), chunksize=64))
        return images

    def _decode(self, path: Path) -> np.ndarray:
        """One file as (C, H, W) uint8."""
        try:
            with Image.open(path, formats=_FORMATS) as file:
                if file.mode.startswith(("I", "F")):
                    raise ValueError(f"mode {file.mode}; 8 bits a channel are needed")
                image = file.convert(_MODES[self.channels])
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(f"data.root: {path} cannot be read as an image: {error}") from None
        if self.image_size is not None and image.size != (self.image_size, self.image_size):
            image = _resize_and_crop(image, self.image_size)
        pixels = np.asarray(image)
        return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


def _class_names(root: Path) -> list[str]:
    """Sorted folder names of train, which test must share."""
    found = {}
    for part in PARTS:
        if not (root / part).is_dir():
            raise invalid("data.root", str(root), f"a folder with {part}/<class>/ inside; there is no {root / part}")
        found[part] = sorted(path.name for path in (root / part).iterdir() if path.is_dir())
    if not found["train"]:
        raise invalid("data.root", str(root), "a folder with train/<class>/ inside; train has no class folder")
    if found["train"] != found["test"]:
        odd = sorted(set(found["train"]) ^ set(found["test"]))
        raise invalid("data.root", str(root), f"the same class folders in train and test; {odd} are in one only")
    return found["train"]


def _list_files(folder: Path, classes: list[str]) -> list[tuple[Path, int]]:
    """Every image below folder/<class>, sorted, with its label."""
    files = []
    for label, name in enumerate(classes):
        found = sorted(path for path in (folder / name).rglob("*") if path.suffix.lower() in EXTENSIONS)
        members = [path for path in found if not path.is_dir()]
        if not members:
            raise invalid("data.root", str(folder / name), f"at least one image ({', '.join(sorted(EXTENSIONS))})")
        if odd := [path for path in members if path.exists() and not path.is_file()]:
            raise invalid("data.root", str(odd[0]), "a regular file; reading a pipe or a device may never end")
        files += [(path, label) for path in members]
    return files


def _resize_and_crop(image: Image.Image, size: int) -> Image.Image:
    """Shorter side to `size` (bilinear, with antialiasing), then the centre."""
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return resized.crop((left, top, left + size, top + size))
