"""Augmentation of a whole batch at once, on its device; what happens to an example follows from its key alone."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from robust_arch import randomness
from robust_arch.errors import invalid, require_flag


@dataclass(frozen=True, kw_only=True)
class CropFlip:
    """Random crop after zero padding of `padding` pixels a side, and a horizontal flip with probability 1/2."""

    padding: int = 4
    flip: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.padding, bool) or not isinstance(self.padding, int) or self.padding < 0:
            raise invalid("recipe.augment.padding", self.padding, "an integer of at least 0")
        require_flag("recipe.augment.flip", self.flip)

    def __call__(self, images: Tensor, keys: Tensor) -> Tensor:
        """images: (B, C, H, W) of any type; keys: (B,) as of `randomness.example_keys`. Returns (B, C, H, W)."""
        batch, _, height, width = images.shape
        draws = randomness.random_bits(keys, 3)
        offsets = 2 * self.padding + 1
        top, left = (draws[:, i].remainder(offsets) for i in (0, 1))
        rows = top[:, None] + torch.arange(height, device=images.device)
        columns = left[:, None] + torch.arange(width, device=images.device)
        if self.flip:
            flipped = (draws[:, 2] & 1).bool()
            columns = torch.where(flipped[:, None], columns.flip(1), columns)
        padded = F.pad(images, (self.padding,) * 4)
        examples = torch.arange(batch, device=images.device)[:, None, None]
        return padded[examples, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
