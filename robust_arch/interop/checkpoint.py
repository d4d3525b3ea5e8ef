"""This project's checkpoints: weights with a card that describes them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from robust_arch.architectures import AnyArch, ArchSpec, Classifier, CustomArch, build
from robust_arch.architectures.custom import TARGET
from robust_arch.common.annotations import fits
from robust_arch.common.plain import shown
from robust_arch.errors import InputError, invalid
from robust_arch.interop.normalisation import Normalisation, Request, Statistics
from robust_arch.interop.reading import read_weights_only
from robust_arch.interop.sizes import require_image_shape, require_weights
from robust_arch.interop.strict import load_strictly
from robust_arch.runs.records import WEIGHTS

PREFIXES = {name: "net." if name == "raw" else f"averages.{name}." for name in WEIGHTS}
"""By name of the weights, what their keys start with in a checkpoint's state_dict."""
_MOST_STAGES = 64  # some ten times those of any family
_MOST_NUMBERS = 2**22  # of an image on which a network of the user's own is tried: 1,000 x 1,000 pixels in colour
_LONGEST = 1_000  # characters of the words that name such a network
_Plain = str | int | float | bool | None
_Setting = _Plain | Sequence[_Plain]
_CARD = {
    "arch": Mapping[str, _Setting | Mapping[str, _Setting]],
    "num_classes": int,
    "image_shape": Sequence[int],
}


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A network with what its file says about it.

    Attributes:
        net: in evaluation mode, behind the normalisation that the file holds.
        spec: its architecture.
        card: the file's own description, plain data; empty for a published file.
        carried: the normalisation in a published file, or None.
        weights: raw, or how they were averaged: ema or swa.
    """

    net: Classifier
    spec: AnyArch
    card: Mapping[str, Any]
    carried: Normalisation | None = None
    weights: str = "raw"

    def normalised(self, request: Request, statistics: Statistics | None) -> Normalisation:
        """The normalisation to put in front of the network.

        statistics: returns mean and std of the training images, for a request that needs them.

        Raises:
            InputError: for a request that contradicts the file; a checkpoint of this project contradicts every request.
        """
        if not self.card:
            return request.settle(self.carried, self.net.normalize.mean.shape[1], statistics)
        mean, std = (tuple(buffer.flatten().tolist()) for buffer in (self.net.normalize.mean, self.net.normalize.std))
        own = Normalisation(mean, std, "inside the checkpoint")
        if not request.is_empty:
            value = request.mean if request.normalize is None else request.normalize
            raise invalid(request.key, value, f"nothing, as a checkpoint of this project holds its own: {own}")
        return own


def load_checkpoint(path: str | Path, expected: AnyArch | None = None, weights: str | None = None) -> LoadedCheckpoint:
    """The network in `path`, with every weight accounted for.

    weights: raw, ema or swa; None for those that decided the best epoch of the training.

    Raises:
        InputError: for a missing file, one that this project did not write, another architecture than `expected`,
            which must be given for a network of the user's own, or weights that it does not hold.
    """
    own = expected if isinstance(expected, CustomArch) else None
    loaded = read_checkpoint(read_weights_only(path), str(path), weights, own)
    if expected is not None and expected != loaded.spec:
        raise invalid("arch", expected.to_dict(), f"the checkpoint's own architecture, {loaded.spec.to_dict()}")
    return loaded


def read_checkpoint(
    content: Mapping[str, Any], path: str, weights: str | None = None, own: CustomArch | None = None
) -> LoadedCheckpoint:
    """The network in the content of a checkpoint file.

    path: named in errors. weights: as in `load_checkpoint`. own: as for `restore`.
    """
    card, state = content.get("card"), content.get("state_dict")
    if not isinstance(card, dict) or not set(card) >= set(_CARD) or not isinstance(state, dict):
        raise InputError(
            f"checkpoint = {path!r}: expected a checkpoint that this project wrote; it has no card with weights"
        )
    # training keeps more than one network under state_dict
    held = {
        name: tensors
        for name, prefix in PREFIXES.items()
        if (tensors := {key: each for key, each in state.items() if isinstance(key, str) and key.startswith(prefix)})
    }
    chosen = weights or recorded_weights(card)
    if chosen not in (held or ("raw",)):
        raise invalid("weights", chosen, f"{' or '.join(held) or 'raw'}, which {path} holds")
    if len(held) > 1:  # from here on the card describes these weights alone
        card = {**card, "weights": chosen}
    return restore(card, held.get(chosen, {}), path, PREFIXES[chosen], own)


def recorded_weights(card: Mapping[str, Any]) -> str:
    """The weights that a card names; raw, as in files of earlier versions, if it names none."""
    named = card.get("weights")
    return named if isinstance(named, str) and named in WEIGHTS else "raw"


def restore(
    card: Mapping[str, Any],
    tensors: Mapping[str, Any],
    path: str,
    prefix: str = "",
    own: CustomArch | None = None,
) -> LoadedCheckpoint:
    """The network that `card` describes, with these weights, whose keys are ours after `prefix`.

    own: the network of the user's own that the file must name. What a file names is never imported without it.

    Raises:
        InputError: for a card that describes no network, weights of another network, or fewer weights than it claims.
    """
    arch = card.get("arch")
    if own is not None or (isinstance(arch, dict) and TARGET in arch):
        return _restore_own(card, tensors, path, prefix, own)
    fitting = all(fits(card.get(key), annotation) for key, annotation in _CARD.items())
    settings = _settings(card["arch"]) if fitting else []
    lists = [value for value in settings if isinstance(value, list | tuple)]
    if not fitting or len(card["image_shape"]) != 3 or any(len(value) > _MOST_STAGES for value in lists):
        raise InputError(f"checkpoint = {path!r}: its card has no arch, num_classes and image_shape of a network")
    spec, num_classes = ArchSpec.from_dict(card["arch"]), card["num_classes"]
    channels, height, width = card["image_shape"]
    image_shape = (channels, height, width)
    require_weights(spec, num_classes, image_shape, tensors)
    require_image_shape(spec, image_shape)
    net = build(spec, num_classes, image_shape, seed=0)
    load_strictly(net, tensors, spec, lambda key: prefix + key)
    return LoadedCheckpoint(net.eval(), spec, card, weights=recorded_weights(card))


def _restore_own(
    card: Mapping[str, Any], tensors: Mapping[str, Any], path: str, prefix: str, own: CustomArch | None
) -> LoadedCheckpoint:
    """As `restore`, where the card or the user names a network of the user's own."""
    arch: Any = card.get("arch")
    named = CustomArch.from_dict(arch) if isinstance(arch, dict) and TARGET in arch else None
    if own is None and named is not None:
        raise InputError(
            f"checkpoint = {path!r}: expected a network of this project, as nothing that a file names is imported; "
            f"this one names code from elsewhere. If you trust it, add {named.words[:_LONGEST]}"
        )
    if own is None or named != own:
        raise invalid("arch", own and own.to_dict(), f"the checkpoint's own architecture, {shown(arch)}")
    fitting = all(fits(card.get(key), _CARD[key]) for key in ("num_classes", "image_shape"))
    if not fitting or len(card["image_shape"]) != 3 or not 0 < math.prod(card["image_shape"]) <= _MOST_NUMBERS:
        raise InputError(f"checkpoint = {path!r}: its card has no num_classes and image_shape of a network")
    net = build(own, card["num_classes"], tuple(card["image_shape"]), seed=0)
    load_strictly(net, tensors, own, lambda key: prefix + key)
    return LoadedCheckpoint(net.eval(), own, card, weights=recorded_weights(card))


def _settings(arch: Mapping[str, Any]) -> list[Any]:
    """The values of an architecture and of its options."""
    groups = [value if isinstance(value, Mapping) else {"": value} for value in arch.values()]
    return [value for group in groups for value in group.values()]


def save_checkpoint(loaded: LoadedCheckpoint, path: Path) -> None:
    """Write a checkpoint that `load_checkpoint` reads; its card is `loaded.card`."""
    prefix = PREFIXES[loaded.weights]
    weights = {f"{prefix}{key}": value.contiguous() for key, value in loaded.net.state_dict().items()}
    torch.save({"card": dict(loaded.card), "state_dict": weights}, path)
