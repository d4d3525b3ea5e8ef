"""Image files decoded once into memory and into a cache outside their folder."""

import hashlib
import inspect
import json
import logging
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL
import torch

from robust_arch.common.files import read_arrays, replacing
from robust_arch.data import image_decoding
from robust_arch.data.encoded import EncodedImages
from robust_arch.data.image_decoding import Decoder
from robust_arch.data.images import ImageSet, require_memory
from robust_arch.data.reading import Reading
from robust_arch.errors import InputError, invalid

log = logging.getLogger(__name__)


def without_a_size(image_size: int | None, found: str) -> InputError:
    """The error for images of different sizes."""
    return invalid("data.image_size", image_size, f"a size to resize to, as {found}")


def decoded(files: EncodedImages, decoder: Decoder, num_classes: int, cache: Path) -> ImageSet:
    """All images in memory, from the folder `cache` if no file and nothing of the reader has changed since."""
    reader = (PIL.__version__, inspect.getsource(image_decoding), decoder.image_size, decoder.channels, files.stamp())
    cached = cache / f"{hashlib.blake2b(repr(reader).encode(), digest_size=12).hexdigest()}.npz"
    # stored uncompressed, so a whole file never holds more than its own size
    most = cached.stat().st_size if cached.is_file() else 0
    if (arrays := read_arrays(cached, most)) is not None:
        images, converted = arrays["images"], json.loads(str(arrays["converted"]))
    else:
        log.info("decoding %d images, from %s on, once into %s", len(files), files.name(0), cached)
        images, converted = _decode_all(files, decoder)
        with replacing(cached) as temporary, temporary.open("wb") as handle:
            np.savez(handle, images=images, converted=np.array(json.dumps(converted)))
    reading = Reading(len(images), files.noted, files.skipped, converted)
    return ImageSet(torch.from_numpy(images), torch.from_numpy(files.labels), num_classes, reading=reading)


def _decode_all(files: EncodedImages, decode: Decoder) -> tuple[np.ndarray, dict[str, int]]:
    """(N, C, H, W) uint8, and the number of images by conversion."""
    if decode.image_size is not None:
        require_memory("data.image_size", decode.image_size, len(files) * decode.channels * decode.image_size**2)
    first, _ = decode(files.content(0), files.name(0))
    try:
        images = np.empty((len(files), *first.shape), dtype=np.uint8)
    except MemoryError:
        size = f"{len(files) * first.nbytes / 2**30:,.0f} GiB of memory"
        raise without_a_size(decode.image_size, f"{len(files)} images of {first.shape} take {size}") from None

    def put(position: int) -> list[str]:
        image, conversions = decode(files.content(position), files.name(position))
        if image.shape != first.shape:
            found = f"{files.name(0)} is {first.shape[1:]} and {files.name(position)} {image.shape[1:]}"
            raise without_a_size(decode.image_size, found)
        images[position] = image
        return conversions

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        done = pool.map(put, range(len(files)))
        return images, dict(Counter(name for conversions in done for name in conversions))
