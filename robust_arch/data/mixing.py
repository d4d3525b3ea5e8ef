"""Mixing each image of a batch with another one, and its label in the same proportion.

Mixing follows augmentation and precedes the attack (Rebuffi et al. 2021). One draw is made per batch, on the host, from
the seed of the step alone. An image is mixed with one a drawn number of places before it in the global batch, the same
number for all, so that each image is in two mixtures.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from robust_arch.errors import invalid, require_integer

_LARGEST_ALPHA = 1000.0  # both shares are then within a few percent of 1/2


@dataclass(frozen=True)
class Mixture:
    """What is done to every image of one batch.

    Attributes:
        own: share of an image's own label; its partner's label has the rest.
        box: rows and columns that are replaced by the partner's; None to blend the two images as the labels.
    """

    own: float
    box: tuple[slice, slice] | None = None

    def images(self, images: Tensor, partners: Tensor) -> Tensor:
        """images, partners: (B, C, H, W), floating point. Returns (B, C, H, W)."""
        if self.box is None:
            return self.labels(images, partners)
        mixed, inside = images.clone(), (..., *self.box)
        mixed[inside] = partners[inside]
        return mixed

    def labels(self, labels: Tensor, partners: Tensor) -> Tensor:
        """labels, partners: probabilities (B, K). Returns (B, K)."""
        return self.own * labels + (1 - self.own) * partners


@dataclass(frozen=True, kw_only=True)
class MixUp:
    """A blend of two images, in which the share of each follows Beta(alpha, alpha) (Zhang et al. 2018).

    Attributes:
        alpha: 0 for no mixup.
        probability: share of the batches that are mixed.
    """

    alpha: float = 0.0
    probability: float = 1.0

    def __post_init__(self) -> None:
        _require_range("recipe.mixup.alpha", self.alpha, _LARGEST_ALPHA)
        _require_range("recipe.mixup.probability", self.probability, 1)

    @property
    def is_on(self) -> bool:
        """Whether any batch is mixed."""
        return self.alpha > 0 and self.probability > 0

    def __str__(self) -> str:
        """As in the recipe's name in records, like `mixup0.2`."""
        return f"mixup{self.alpha:g}{_share(self.probability)}"

    def draw(self, random: np.random.Generator, size: tuple[int, int]) -> Mixture:  # noqa: ARG002
        """The mixture of one batch of images of `size` (H, W)."""
        return Mixture(float(random.beta(self.alpha, self.alpha)))


@dataclass(frozen=True, kw_only=True)
class CutMix:
    """A box of the partner's pixels around a random pixel, which the image's border may cut off (Yun et al. 2019).

    The partner's share of the label is the box's share of the image.

    Attributes:
        alpha: the box's share of the image, before it is cut off, follows Beta(alpha, alpha); 0 for no such box.
        window: side in pixels of a square box of fixed size instead (Rebuffi et al. 2021); 0 for none.
        probability: share of the batches that are mixed.
    """

    alpha: float = 0.0
    window: int = 0
    probability: float = 1.0

    def __post_init__(self) -> None:
        _require_range("recipe.cutmix.alpha", self.alpha, _LARGEST_ALPHA)
        require_integer("recipe.cutmix.window", self.window, 0)
        _require_range("recipe.cutmix.probability", self.probability, 1)
        if self.alpha and self.window:
            raise invalid("recipe.cutmix.window", self.window, f"0 where recipe.cutmix.alpha = {self.alpha:g} is set")

    @property
    def is_on(self) -> bool:
        """Whether any batch is mixed."""
        return (self.alpha > 0 or self.window > 0) and self.probability > 0

    def __str__(self) -> str:
        """As in the recipe's name in records, like `cutmix1` or, with a fixed window, `cutmix20px`."""
        size = f"{self.window}px" if self.window else f"{self.alpha:g}"
        return f"cutmix{size}{_share(self.probability)}"

    def draw(self, random: np.random.Generator, size: tuple[int, int]) -> Mixture:
        """The mixture of one batch of images of `size` (H, W)."""
        share = random.beta(self.alpha, self.alpha) if self.alpha else 0.0
        rows, columns = (
            _around(int(random.integers(length)), self.window or int(length * math.sqrt(share)), length)
            for length in size
        )
        covered = (rows.stop - rows.start) * (columns.stop - columns.start)
        return Mixture(1 - covered / math.prod(size), (rows, columns))


def draw(mixup: MixUp, cutmix: CutMix, seed: int, size: tuple[int, int]) -> Mixture | None:
    """The mixture of the batch that `seed` stands for, or None if it is left as it is.

    With both on, each batch gets one of them, with probability 1/2 each. size: (H, W) of the images.
    """
    kinds = [kind for kind in (mixup, cutmix) if kind.is_on]
    if not kinds:
        return None
    random = np.random.default_rng(seed)
    kind = kinds[int(random.integers(len(kinds)))]
    return kind.draw(random, size) if random.random() < kind.probability else None


def _around(centre: int, side: int, length: int) -> slice:
    first = centre - side // 2
    return slice(max(first, 0), min(first + side, length))


def _share(probability: float) -> str:
    return "" if probability == 1 else f"p{probability:g}"


def _require_range(key: str, value: Any, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise invalid(key, value, f"a number from 0 to {most:g}")
