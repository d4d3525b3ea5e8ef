"""Images that are decoded each time they are used, for sets that do not fit into memory."""

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from robust_arch.common import randomness
from robust_arch.data.encoded import EncodedImages
from robust_arch.data.image_decoding import Decoder, pixels_of

_SCALE = (0.08, 1.0)  # of an image's area that a random crop covers, as published (Szegedy et al. 2015)
_LOG_RATIO = (math.log(3 / 4), math.log(4 / 3))  # of a random crop's width to its height
_ATTEMPTS = 10  # crops that are tried before the centre is taken
_DRAWS = 4  # random numbers of an attempt: area, ratio, top, left
_DECODER = Decoder(channels=3, image_size=None)


@dataclass(frozen=True, eq=False)
class StreamedImages:
    """Images (N, 3, side, side) uint8 that are decoded on access; they take the place of a tensor in an `ImageSet`.

    Attributes:
        files: encoded images.
        positions: (N,) of the images in `files`.
        side: of the square images in pixels.
        resize: length to which the shorter side is resized before the centre is cropped.
        workers: processes that decode training batches, and threads that decode other ones.
    """

    files: EncodedImages
    positions: np.ndarray
    side: int
    resize: int
    workers: int

    ndim = 4
    dtype = torch.uint8

    @property
    def shape(self) -> torch.Size:
        """(N, 3, side, side)."""
        return torch.Size((len(self.positions), 3, self.side, self.side))

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """The centres of these images, (B, 3, side, side) uint8."""
        chosen = self.positions[index if isinstance(index, slice) else index.numpy()]
        return self._decoded(chosen.tolist(), self._centre, threads=self.workers)

    def subset(self, index: Tensor) -> "StreamedImages":
        """The images at these positions, not yet decoded. index: (M,) int64."""
        return replace(self, positions=self.positions[index.numpy()])

    def random_crops(self, index: Tensor, keys: Tensor) -> Tensor:
        """A random crop of each image, resized: (B, 3, side, side) uint8.

        index: (B,) int64. keys: (B,) int64, from `randomness.example_keys`, which decide the crops.
        """
        draws = randomness.uniform(keys, (_ATTEMPTS, _DRAWS)).double().tolist()
        crops = iter(draws)
        return self._decoded(self.positions[index.numpy()].tolist(), lambda image: self._crop(image, next(crops)))

    def fingerprint(self) -> bytes:
        """Of the files, which of them these are, and what is made of them."""
        own = np.ascontiguousarray(self.positions, dtype="<i8").tobytes()
        return self.files.fingerprint + repr((self.side, self.resize)).encode() + own

    def _decoded(
        self, positions: list[int], view: Callable[[Image.Image], Image.Image], threads: int = 0
    ) -> Tensor:  # fmt: skip
        def read(position: int) -> np.ndarray:
            image, _ = _DECODER.image(self.files.content(position), self.files.name(position))
            return pixels_of(view(image))

        if not positions:
            return torch.empty((0, 3, self.side, self.side), dtype=torch.uint8)
        if threads < 2:  # in order, as random crops must be
            return torch.from_numpy(np.stack(list(map(read, positions))))
        with ThreadPoolExecutor(threads) as pool:
            return torch.from_numpy(np.stack(list(pool.map(read, positions))))

    def _centre(self, image: Image.Image) -> Image.Image:
        """Resize the shorter side, then crop the centre, as torchvision does."""
        shorter, longer = sorted(image.size)
        other = int(self.resize * longer / shorter)
        size = (self.resize, other) if image.width <= image.height else (other, self.resize)
        resized = image if size == image.size else image.resize(size, Image.Resampling.BILINEAR)
        left, top = (round((length - self.side) / 2) for length in size)
        return resized.crop((left, top, left + self.side, top + self.side))

    def _crop(self, image: Image.Image, draws: list[list[float]]) -> Image.Image:
        left, top, width, height = crop_box(image.width, image.height, draws)
        crop = image.crop((left, top, left + width, top + height))
        return crop.resize((self.side, self.side), Image.Resampling.BILINEAR)


def crop_box(width: int, height: int, draws: list[list[float]]) -> tuple[int, int, int, int]:
    """Left, top, width and height of a random crop, as torchvision's RandomResizedCrop draws it.

    draws: per attempt four numbers in [0, 1): area, ratio, top, left. If no attempt fits, the centre of the ratio next
    to the image's own.
    """
    for area_draw, ratio_draw, top_draw, left_draw in draws:
        area = width * height * (_SCALE[0] + area_draw * (_SCALE[1] - _SCALE[0]))
        ratio = math.exp(_LOG_RATIO[0] + ratio_draw * (_LOG_RATIO[1] - _LOG_RATIO[0]))
        crop_width, crop_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top, left = int(top_draw * (height - crop_height + 1)), int(left_draw * (width - crop_width + 1))
            return left, top, crop_width, crop_height
    low, high = map(math.exp, _LOG_RATIO)
    crop_width, crop_height = width, height
    if width / height < low:
        crop_height = round(width / low)
    elif width / height > high:
        crop_width = round(height * high)
    return (width - crop_width) // 2, (height - crop_height) // 2, crop_width, crop_height


def available_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
