"""Images on which two forms of a network are compared."""

from collections.abc import Sequence

import torch
from torch import Tensor


def probe_images(image_shape: Sequence[int], count: int) -> Tensor:
    """Uniform random images, always the same ones: (count, C, H, W) in [0, 1]."""
    return torch.rand(count, *image_shape, generator=torch.Generator().manual_seed(0))
