"""The normalisation in front of a published network: in its file, given by the user, or none."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robust_arch.architectures import Classifier
from robust_arch.architectures.build import Normalize
from robust_arch.errors import InputError, invalid

MODES = ("dataset", "identity")
FROM_OUTSIDE = "given on the command line"
FROM_DATASET = "of the training images"
Statistics = Callable[[], tuple[list[float], list[float]]]
"""Reads training images and returns mean and std of each channel, in units of images in [0, 1]."""
_ROUNDING = 1e-4  # between a file's values and given ones: published values have four digits

_CARRIED = re.compile(r"(?:(?:normali[sz](?:e|er|ation)|norm|0)\.)?(?:(?P<mean>mu|means?)|(?P<std>sigma|stds?))")


@dataclass(frozen=True)
class Normalisation:
    """(x - mean) / std per channel, for images in [0, 1].

    Attributes:
        mean: one number per channel, float32.
        std: one number per channel, float32, greater than 0.
        source: where it comes from, in words for records and cards.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str

    @property
    def is_identity(self) -> bool:
        """Whether it changes nothing."""
        return set(self.mean) == {0.0} and set(self.std) == {1.0}

    def __str__(self) -> str:
        if self.is_identity:
            return self.source if self.source.startswith("no") else f"none, {self.source}"
        mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (self.mean, self.std))
        return f"mean [{mean}], std [{std}], {self.source}"

    def as_record(self) -> dict[str, Any]:
        """As JSON types, with the text for readers."""
        return {"mean": list(self.mean), "std": list(self.std), "text": str(self)}

    def applied_to(self, net: Classifier) -> Classifier:
        """The same network behind this normalisation; the weights are shared."""
        return Classifier(Normalize(self.mean, self.std), net.network, net.layout).eval()


def identity(channels: int, source: str) -> Normalisation:
    """No normalisation."""
    return Normalisation((0.0,) * channels, (1.0,) * channels, source)


def checked(mean: Any, std: Any, source: str, keys: tuple[str, str]) -> Normalisation:
    """A normalisation from lists of one number per channel. keys: their names in errors.

    Raises:
        InputError: unless both are lists of finite numbers of the same length, and every std is above 0 in float32.
    """
    for key, values in zip(keys, (mean, std), strict=True):
        if not isinstance(values, Sequence) or not values or not all(map(_is_finite, values)):
            raise invalid(key, values, "one finite number per channel, like [0.49,0.48,0.45], for images in [0, 1]")
    if len(mean) != len(std):
        raise invalid(keys[1], std, f"as many numbers as {keys[0]}, {len(mean)}")
    mean, std = (tuple(torch.tensor(values, dtype=torch.float32).tolist()) for values in (mean, std))
    if not all(map(math.isfinite, mean)):
        raise invalid(keys[0], list(mean), "finite in float32")
    if min(std) <= 0 or not all(map(math.isfinite, std)):
        raise invalid(keys[1], list(std), "numbers that are finite and greater than 0 in float32")
    return Normalisation(mean, std, source)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


@dataclass(frozen=True)
class Request:
    """The normalisation that a user asks for; none if neither `normalize` nor `mean` and `std` are given.

    Attributes:
        normalize: `dataset`, the mean and std of the training images, or `identity`, none.
        mean: one number per channel.
        std: one number per channel.
        keys: names of normalize, mean and std in errors.
    """

    normalize: Any = None
    mean: Any = None
    std: Any = None
    keys: tuple[str, str, str] = ("normalize", "mean", "std")

    def __post_init__(self) -> None:
        mode, *given = self.keys
        if self.normalize is not None and self.normalize not in MODES:
            raise invalid(mode, self.normalize, f"one of {', '.join(MODES)}")
        for key, value in zip(given, (self.mean, self.std), strict=True):
            if value is not None and self.normalize is not None:
                raise invalid(key, value, f"nothing beside {mode} = {self.normalize}")
        if self.mean is not None or self.std is not None:
            checked(self.mean, self.std, FROM_OUTSIDE, (given[0], given[1]))

    @property
    def key(self) -> str:
        """The name of the request in errors."""
        return self.keys[0 if self.mean is None else 1]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is asked for."""
        return self.normalize is None and self.mean is None

    def settle(self, carried: Normalisation | None, channels: int, statistics: Statistics | None) -> Normalisation:
        """The normalisation of a published network: its file's own, else the requested one, else none.

        carried: that of the file. statistics: returns mean and std of the training images; None without a data set.

        Raises:
            InputError: if file and request contradict each other, unless there is one number per channel, or if a
                channel of the training images is constant.
        """
        if self.is_empty:
            return carried or identity(channels, "none assumed: the file carries none, and none was given")
        if self.normalize == "identity":
            given = identity(channels, "none, as set on the command line")
        elif self.normalize is None:
            given = checked(self.mean, self.std, FROM_OUTSIDE, self.keys[1:])
        elif statistics is None:
            raise invalid(self.key, self.normalize, "mean and std, as no data set is given")
        else:
            given = checked(*statistics(), FROM_DATASET, (self.key, self.key))
        if len(given.mean) != channels:
            raise invalid(self.key, list(given.mean), f"one number for each of the network's {channels} channels")
        if carried is None:
            return given
        pairs = zip((*carried.mean, *carried.std), (*given.mean, *given.std), strict=True)
        if not all(math.isclose(first, second, abs_tol=_ROUNDING) for first, second in pairs):
            raise invalid(self.key, str(given), f"nothing, or what the file carries itself: {carried}")
        return carried


def part_of_normalisation(name: str) -> str | None:
    """`mean` or `std` for a key like `mu`, `sigma` or `normalize.mean`, None for any other key."""
    match = _CARRIED.fullmatch(name)
    return match.lastgroup if match else None


def carried_by(parts: Mapping[str, Mapping[str, Any]], channels: int) -> Normalisation | None:
    """The normalisation in a file, if there is one. parts: for `mean` and `std`, the file's entries by key.

    Raises:
        InputError: for one without the other, contradicting ones, or entries that are not one number per channel.
    """
    if not any(parts.values()):
        return None
    found = []
    for part, entries in parts.items():
        if not entries:
            other = next(key for each in parts.values() for key in each)
            raise InputError(f"checkpoint: the file carries {other!r}, but no {part} to go with it")
        (key, values), *others = [(key, _per_channel(key, value, channels)) for key, value in entries.items()]
        for other, other_values in others:
            if other_values != values:
                raise InputError(f"checkpoint: {key!r} and {other!r} contradict each other")
        found.append((f"checkpoint: {key!r}", values))
    (mean_key, mean), (std_key, std) = found
    return checked(mean, std, "carried by the file", (mean_key, std_key))


def _per_channel(key: str, value: Any, channels: int) -> list[float]:
    """A file's tensor of shape (C,), (C, 1, 1), (1, C, 1, 1) or one number for all channels, as C numbers."""
    tensor = torch.tensor(value) if isinstance(value, list | tuple) and all(map(_is_finite, value)) else value
    plain = isinstance(tensor, Tensor) and tensor.layout == torch.strided and not tensor.is_meta
    if not plain or tensor.is_quantized or tensor.is_complex() or tensor.numel() not in (1, channels):
        raise InputError(f"checkpoint: {key!r} is not one number for each of the network's {channels} channels")
    numbers = tensor.detach().double().flatten().tolist()
    return numbers * channels if len(numbers) == 1 else numbers
