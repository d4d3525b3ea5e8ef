"""Stems for images of about 32 pixels per side, or for the 224 pixels of ImageNet."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from robust_arch.architectures.counting import Count, Size, convolution, halved, pixels
from robust_arch.architectures.options import Options, require_choice

STEMS = ("cifar", "imagenet")


@dataclass(frozen=True)
class StemOptions(Options):
    """Options of a family whose only choice is the stem, one of STEMS."""

    stem: str = "cifar"

    def __post_init__(self) -> None:
        require_choice("stem", self.stem, STEMS)


def stem_convolution(stem: str, channels: int, width: int) -> nn.Conv2d:
    """cifar: 3x3 at stride 1; imagenet: 7x7 at stride 2, after which `stem_pool` halves again."""
    if stem == "imagenet":
        return nn.Conv2d(channels, width, 7, 2, padding=3, bias=False)
    return nn.Conv2d(channels, width, 3, padding=1, bias=False)


def stem_pool(stem: str) -> nn.Module:
    """imagenet: the largest of 3x3 at stride 2; cifar: nothing."""
    return nn.MaxPool2d(3, 2, padding=1) if stem == "imagenet" else nn.Sequential()


def stem_kept(stem: str, width: int, size: Size) -> tuple[int, Size]:
    """Numbers per image that the pooling after a stem keeps beside its input, and the size after the stem."""
    if stem == "imagenet":
        pooled = halved(halved(size))
        return 2 * width * pixels(pooled), pooled  # the place of each maximum, an integer of 64 bits
    return 0, size


def stem_count(stem: str, channels: int, width: Any, size: Size) -> tuple[Count, Size]:
    """The cost of the stem's convolution on images of this size, and the size after the stem."""
    if stem == "imagenet":
        return convolution(channels, width, 7, halved(size)), halved(halved(size))
    return convolution(channels, width, 3, size), size
