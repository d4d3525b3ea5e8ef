"""Images on which two forms of a network are compared."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_MOST_NUMBERS = 2**24  # in all images together: five of 1,000 x 1,000 pixels in colour


def probe_images(image_shape: Sequence[int], count: int) -> Tensor:
    """Uniform random images, always the same ones: (count, C, H, W) in [0, 1]; of very large ones two."""
    if count * math.prod(image_shape) > _MOST_NUMBERS:
        count = 2
    return torch.rand(count, *image_shape, generator=torch.Generator().manual_seed(0))
