"""Images in folders, root/{train,test}/<class>/<file>, decoded once into a cache outside the root."""

import hashlib
import inspect
import json
import logging
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import PIL
import torch

from robust_arch.common.files import read_arrays, replacing
from robust_arch.common.paths import cache_dir
from robust_arch.data import image_decoding
from robust_arch.data.dataset import Dataset
from robust_arch.data.folder_listing import PARTS, Listing, list_images
from robust_arch.data.image_decoding import MODES, Decoder
from robust_arch.data.images import ImageSet, require_memory
from robust_arch.data.reading import Reading
from robust_arch.errors import InputError, invalid, require_integer

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ImageFolder(Dataset):
    """Classes are the folder names, sorted; the same in train and test.

    Attributes:
        root: the folder.
        image_size: side of the square images in pixels; for files of other sizes, the shorter side is resized to it and
            the centre cropped. None keeps the files' own size, which must be the same for all.
        channels: 3 (RGB) or 1 (grey).
        cache: folder for decoded arrays, by default the user's cache folder.
    """

    root: str | None
    image_size: int | None = None
    channels: int = 3
    cache: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.root is None:
            raise invalid("data.root", None, "the folder that holds train/<class>/ and test/<class>/")
        if type(self.channels) is not int or self.channels not in MODES:
            raise invalid("data.channels", self.channels, "3 (RGB) or 1 (grey)")
        require_integer("data.image_size", self.image_size, 1, optional=True)

    def as_recorded(self) -> "ImageFolder":
        """With the user's own cache folder; the images are read from the root that the file names."""
        return replace(self, cache=None)

    def read(self) -> tuple[ImageSet, ImageSet]:
        """Both parts, from the cache if no file has changed since; logs what became of the files."""
        try:
            root = Path(str(self.root)).expanduser().resolve(strict=True)
        except (OSError, RuntimeError, ValueError) as error:  # not there, a circle of links, no path at all
            allowed = f"a folder that holds train/<class>/ and test/<class>/; {error}"
            raise invalid("data.root", str(self.root), allowed) from None
        classes, listings, beside = list_images(root)
        train, test = (self._read_part(root, listings[part], len(classes)) for part in PARTS)
        if train.image_shape != test.image_shape:
            raise self._without_a_size(f"train has {train.image_shape} and test {test.image_shape}")
        unread = f" | not read: {beside}" if beside else ""
        log.info("%s in %s | train: %s | test: %s%s", self.name, root, train.reading, test.reading, unread)
        return train, test

    def _without_a_size(self, found: str) -> InputError:
        return invalid("data.image_size", self.image_size, f"a size to resize to, as {found}")

    def _read_part(self, root: Path, listing: Listing, num_classes: int) -> ImageSet:
        paths, labels = zip(*listing.files, strict=True)
        folder = Path(self.cache).expanduser() if self.cache else cache_dir() / "image_folder"
        cached = folder / f"{self._digest(paths)}.npz"
        # stored uncompressed, so a whole file never holds more than its own size
        most = cached.stat().st_size if cached.is_file() else 0
        if (arrays := read_arrays(cached, most)) is not None:
            images, converted = arrays["images"], json.loads(str(arrays["converted"]))
        else:
            log.info("decoding %d images of %s once into %s", len(paths), root, cached)
            images, converted = self._decode_all(paths)
            with replacing(cached) as temporary, temporary.open("wb") as handle:
                np.savez(handle, images=images, converted=np.array(json.dumps(converted)))
        reading = Reading(len(images), dict(listing.noted), dict(listing.skipped), converted)
        return ImageSet(torch.from_numpy(images), torch.tensor(labels), num_classes, reading=reading)

    def _digest(self, paths: Sequence[Path]) -> str:
        """Changes with every file's path, size and times of change, and with the reader: its code and Pillow's."""
        reader = (PIL.__version__, inspect.getsource(image_decoding), self.image_size, self.channels)
        digest = hashlib.blake2b(repr(reader).encode(), digest_size=12)
        for path in paths:
            stat = path.stat()
            digest.update(os.fsencode(path))
            # the second time also reveals a file that was replaced by one of the same age
            digest.update(f"\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}\n".encode())
        return digest.hexdigest()

    def _decode_all(self, paths: Sequence[Path]) -> tuple[np.ndarray, dict[str, int]]:
        """(N, C, H, W) uint8, and the number of images by conversion."""
        if self.image_size is not None:
            require_memory("data.image_size", self.image_size, len(paths) * self.channels * self.image_size**2)
        decode = Decoder(self.channels, self.image_size)
        first, _ = decode(paths[0])
        try:
            images = np.empty((len(paths), *first.shape), dtype=np.uint8)
        except MemoryError:
            size = f"{len(paths) * first.nbytes / 2**30:,.0f} GiB of memory"
            raise self._without_a_size(f"{len(paths)} images of {first.shape} take {size}") from None

        def put(position: int) -> list[str]:
            image, conversions = decode(paths[position])
            if image.shape != first.shape:
                found = f"{paths[0]} is {first.shape[1:]} and {paths[position]} {image.shape[1:]}"
                raise self._without_a_size(found)
            images[position] = image
            return conversions

        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            done = pool.map(put, range(len(paths)))
            return images, dict(Counter(name for conversions in done for name in conversions))
