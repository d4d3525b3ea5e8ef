"""The normalisation in front of a published network: carried by its file, given from outside, or none."""

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
FROM_FILE = "carried by the file"
FROM_CHECKPOINT = "inside the checkpoint"
FROM_OUTSIDE = "given on the command line"
FROM_DATASET = "of the training images"
NOT_ASKED_FOR = "none, as the command line says"
NOT_KNOWN = "none assumed: the file carries none, and none was given"
Statistics = Callable[[], tuple[list[float], list[float]]]
"""Reads training images and returns mean and std of each channel, in units of images in [0, 1]."""
_ROUNDING = 1e-4  # between what a file carries and what is given: published values have four digits

_CARRIED = re.compile(r"(?:(?:normali[sz](?:e|er|ation)|norm|0)\.)?(?:(?P<mean>mu|means?)|(?P<std>sigma|stds?))")


@dataclass(frozen=True)
class Normalisation:
    """(x - mean) / std per channel, for images in [0, 1].

    Attributes:
        mean: one number per channel, float32.
        std: one number per channel, float32, greater than 0.
        source: where it is from, in words for records and cards.
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
        """The same network, weights shared, behind this normalisation."""
        return Classifier(Normalize(self.mean, self.std), net.network).eval()


def identity(channels: int, source: str) -> Normalisation:
    """No normalisation."""
    return Normalisation((0.0,) * channels, (1.0,) * channels, source)


def normalisation_of(net: Classifier) -> Normalisation:
    """What is inside a checkpoint of this project."""
    mean, std = (tuple(buffer.flatten().tolist()) for buffer in (net.normalize.mean, net.normalize.std))
    return Normalisation(mean, std, FROM_CHECKPOINT)


def checked(mean: Any, std: Any, source: str, keys: tuple[str, str]) -> Normalisation:
    """Lists of one number per channel as a normalisation; keys: what errors call them.

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
        raise invalid(keys[1], list(std), "greater than 0, and finite, in float32")
    return Normalisation(mean, std, source)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


@dataclass(frozen=True)
class Request:
    """What a user asks to be put in front of a published network; nothing where all three are None.

    Attributes:
        normalize: `dataset`, the mean and std of the training images, or `identity`, none.
        mean: one number per channel.
        std: one number per channel.
        keys: what errors call normalize, mean and std.
    """

    normalize: Any
    mean: Any
    std: Any
    keys: tuple[str, str, str]

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
        """What errors call the request."""
        return self.keys[0 if self.mean is None else 1]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is asked for."""
        return self.normalize is None and self.mean is None

    def resolve(self, channels: int, statistics: Statistics) -> Normalisation | None:
        """What is asked for, for a network of so many channels; statistics: mean and std of the training images.

        Raises:
            InputError: unless there is one number per channel, or if a channel of the training images is constant.
        """
        if self.is_empty:
            return None
        if self.normalize == "identity":
            return identity(channels, NOT_ASKED_FOR)
        mean, std, source = self.mean, self.std, FROM_OUTSIDE
        if self.normalize == "dataset":
            (mean, std), source = statistics(), FROM_DATASET
        found = checked(mean, std, source, (self.key, self.keys[2] if self.normalize is None else self.key))
        if len(found.mean) != channels:
            raise invalid(self.key, list(mean), f"one number for each of the network's {channels} channels")
        return found


NO_REQUEST = Request(None, None, None, ("normalize", "mean", "std"))


def no_statistics() -> tuple[list[float], list[float]]:
    """Statistics where there is no data set: raises InputError."""
    raise invalid("normalize", "dataset", "mean and std, as no data set is given")


def settle(carried: Normalisation | None, given: Normalisation | None, channels: int, key: str) -> Normalisation:
    """The normalisation of a published network: what its file carries, what is given from outside, or none.

    key: what gave `given`.

    Raises:
        InputError: if the two contradict each other.
    """
    if carried is None:
        return given or identity(channels, NOT_KNOWN)
    if given is not None and not _agree(carried, given):
        raise invalid(key, str(given), f"nothing, or what the file carries itself: {carried}")
    return carried


def _agree(carried: Normalisation, given: Normalisation) -> bool:
    pairs = zip((*carried.mean, *carried.std), (*given.mean, *given.std), strict=True)
    return all(math.isclose(first, second, abs_tol=_ROUNDING) for first, second in pairs)


def part_of_normalisation(name: str) -> str | None:
    """`mean` or `std` for a key like `mu`, `sigma`, `normalize.mean`; None for any other."""
    match = _CARRIED.fullmatch(name)
    return match.lastgroup if match else None


def carried_by(parts: Mapping[str, Mapping[str, Any]], channels: int) -> Normalisation | None:
    """The normalisation in a file; parts: of `mean` and `std` the file's entries by key.

    Raises:
        InputError: for one without the other, contradicting ones, or entries that are not one number per channel.
    """
    if not parts.get("mean") and not parts.get("std"):
        return None
    values, keys = {}, {}
    for part in ("mean", "std"):
        if not (entries := parts.get(part)):
            other = next(iter(parts["std" if part == "mean" else "mean"]))
            raise InputError(f"checkpoint: the file carries {other!r}, but no {part} to go with it")
        read = {key: _per_channel(key, value, channels) for key, value in entries.items()}
        (keys[part], values[part]), *others = read.items()
        for key, other_values in others:
            if other_values != values[part]:
                raise InputError(f"checkpoint: {keys[part]!r} and {key!r} contradict each other")
    names = (f"checkpoint: {keys['mean']!r}", f"checkpoint: {keys['std']!r}")
    return checked(values["mean"], values["std"], FROM_FILE, names)


def _per_channel(key: str, value: Any, channels: int) -> list[float]:
    """A file's tensor of shape (C,), (C, 1, 1), (1, C, 1, 1) or one number for all channels, as C numbers."""
    tensor = torch.tensor(value) if isinstance(value, list | tuple) and all(map(_is_finite, value)) else value
    plain = isinstance(tensor, Tensor) and tensor.layout == torch.strided and not tensor.is_meta
    if not plain or tensor.is_quantized or tensor.is_complex() or tensor.numel() not in (1, channels):
        raise InputError(f"checkpoint: {key!r} is not one number for each of the network's {channels} channels")
    numbers = tensor.detach().double().flatten().tolist()
    return numbers * channels if len(numbers) == 1 else numbers


def is_pair(content: Mapping[str, Any]) -> bool:
    """Whether a dictionary around a state dict holds mean and std, and not just something of one of these names."""
    return {"mean", "std"} <= {part_of_normalisation(key) for key in content if isinstance(key, str)}
