"""Augmentation of a whole batch at once, on its device; what happens to an example depends only on its key."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from robust_arch.common import randomness
from robust_arch.errors import require_flag, require_integer


@dataclass(frozen=True, kw_only=True)
class CropFlip:
    """Random crop, horizontal flip with probability 1/2, and cutout.

    Attributes:
        padding: pixels of zeros added on each side before the crop.
        flip: whether to flip.
        cutout: side of a square of zeros around a random pixel (DeVries and Taylor 2017), which the image's border may
            cut off; 0 for none.
    """

    padding: int = 4
    flip: bool = True
    cutout: int = 0

    def __post_init__(self) -> None:
        for key in ("padding", "cutout"):
            require_integer(f"recipe.augment.{key}", getattr(self, key), 0)
        require_flag("recipe.augment.flip", self.flip)

    def __call__(self, images: Tensor, keys: Tensor) -> Tensor:
        """images: (B, C, H, W) of any type; keys: (B,) from `randomness.example_keys`. Returns (B, C, H, W)."""
        batch, _, height, width = images.shape
        draws = randomness.random_bits(keys, 5)
        offsets = 2 * self.padding + 1
        top, left = (draws[:, i].remainder(offsets) for i in (0, 1))
        rows = top[:, None] + torch.arange(height, device=images.device)
        columns = left[:, None] + torch.arange(width, device=images.device)
        if self.flip:
            flipped = (draws[:, 2] & 1).bool()
            columns = torch.where(flipped[:, None], columns.flip(1), columns)
        padded = F.pad(images, (self.padding,) * 4)
        examples = torch.arange(batch, device=images.device)[:, None, None]
        cropped = padded[examples, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
        return self._cut(cropped, draws[:, 3], draws[:, 4]) if self.cutout else cropped

    def _cut(self, images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Set to zero where both coordinates lie in [centre - side // 2, centre - side // 2 + side)."""
        inside = []
        for draws, size in zip((rows, columns), images.shape[2:], strict=True):
            first = draws.remainder(size)[:, None] - self.cutout // 2
            positions = torch.arange(size, device=images.device)
            inside.append((positions >= first) & (positions < first + self.cutout))
        return images.masked_fill((inside[0][:, :, None] & inside[1][:, None, :])[:, None], 0)
