"""This project's checkpoints: weights with a card that says what they are."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import torch

from robust_arch.architectures import ArchSpec, Classifier, ImageShape, build
from robust_arch.common.plain import is_plain
from robust_arch.errors import InputError, invalid
from robust_arch.interop.normalisation import Normalisation, Request, Statistics, normalisation_of, settle
from robust_arch.interop.reading import read_weights_only
from robust_arch.interop.sizes import require_image_shape, require_weights
from robust_arch.interop.strict import load_strictly

_PREFIX = "net."
_MOST_STAGES = 64  # some ten times those of any family
_CARD_KEYS = frozenset({"arch", "num_classes", "image_shape"})


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A network with what its file says of it.

    Attributes:
        net: in evaluation mode, behind the normalisation that the file holds.
        spec: its architecture.
        card: what the file says of itself, plain data; empty for a published file.
        carried: the normalisation in a published file, or None.
    """

    net: Classifier
    spec: ArchSpec
    card: Mapping[str, Any]
    carried: Normalisation | None = None

    def normalised(self, request: Request, statistics: Statistics) -> Normalisation:
        """The normalisation that belongs in front of the network.

        statistics: mean and std of the training images, asked for where `request` needs them.

        Raises:
            InputError: for a request that contradicts the file, as any does that holds its own.
        """
        channels = self.net.normalize.mean.shape[1]
        if not self.card:
            return settle(self.carried, request.resolve(channels, statistics), channels, request.key)
        own = normalisation_of(self.net)
        if not request.is_empty:
            value = request.mean if request.normalize is None else request.normalize
            raise invalid(request.key, value, f"nothing, as a checkpoint of this project holds its own: {own}")
        return own


def load_checkpoint(path: str | Path, expected: ArchSpec | None = None) -> LoadedCheckpoint:
    """The network in `path`, with every weight accounted for.

    Raises:
        InputError: for a missing file, one that is not of this project, or another architecture than `expected`.
    """
    loaded = read_checkpoint(read_weights_only(path), str(path))
    if expected is not None and expected != loaded.spec:
        raise invalid("arch", expected.to_dict(), f"the checkpoint's own architecture, {loaded.spec.to_dict()}")
    return loaded


def read_checkpoint(content: Mapping[str, Any], path: str) -> LoadedCheckpoint:
    """The network in the content of a checkpoint file; path: named in errors."""
    card, weights = content.get("card"), content.get("state_dict")
    if not isinstance(card, dict) or not set(card) >= _CARD_KEYS or not isinstance(weights, dict):
        raise InputError(f"checkpoint = {path!r}: a checkpoint that this project wrote; it has no card with weights")
    # training keeps more than the network under state_dict
    tensors = {key: value for key, value in weights.items() if isinstance(key, str) and key.startswith(_PREFIX)}
    return restore(card, tensors, path, _PREFIX)


def restore(card: Mapping[str, Any], tensors: Mapping[str, Any], path: str, prefix: str = "") -> LoadedCheckpoint:
    """The network that `card` describes, with these weights, whose keys are ours behind `prefix`.

    Raises:
        InputError: for a card that describes no network, weights of another one, or fewer than it claims.
    """
    arch, num_classes, shape = (card.get(key) for key in ("arch", "num_classes", "image_shape"))
    if not _is_arch(arch) or not _is_size(num_classes) or not _is_shape(shape):
        raise InputError(f"checkpoint = {path!r}: its card has no arch, num_classes and image_shape of a network")
    spec, image_shape = ArchSpec.from_dict(arch), _image_shape(card)
    require_weights(spec, num_classes, image_shape, tensors)
    require_image_shape(spec, image_shape)
    net = build(spec, num_classes, image_shape, seed=0)
    load_strictly(net, tensors, spec, lambda key: prefix + key)
    return LoadedCheckpoint(net.eval(), spec, card)


def _is_arch(value: Any) -> TypeGuard[dict[str, Any]]:
    """Whether it is a group of plain values and short lists of them, with options that are such a group, too."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        return False
    options = value.get("options", {})
    if not isinstance(options, dict) or not all(isinstance(key, str) for key in options):
        return False
    items_of = {key: item for key, item in value.items() if key != "options"}.values()
    lists = [item if isinstance(item, list | tuple) else [item] for item in (*items_of, *options.values())]
    return all(len(items) <= _MOST_STAGES and all(map(is_plain, items)) for items in lists)


def _is_size(value: Any) -> TypeGuard[int]:
    return type(value) is int and is_plain(value)


def _is_shape(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 3 and all(map(_is_size, value))


def _image_shape(card: Mapping[str, Any]) -> ImageShape:
    channels, height, width = card["image_shape"]
    return channels, height, width


def save_checkpoint(loaded: LoadedCheckpoint, path: Path) -> None:
    """Write a checkpoint that `load_checkpoint` reads; the card is `loaded.card`."""
    weights = {f"{_PREFIX}{key}": value.contiguous() for key, value in loaded.net.state_dict().items()}
    torch.save({"card": dict(loaded.card), "state_dict": weights}, path)
