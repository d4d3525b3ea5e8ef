"""This project's checkpoints: weights with a card that says what they are."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robust_arch.architectures import ArchSpec, Classifier, build
from robust_arch.errors import InputError, invalid
from robust_arch.interop.files import read_weights_only
from robust_arch.interop.published import load_strictly

_PREFIX = "net."
_CARD_KEYS = frozenset({"arch", "num_classes", "image_shape"})


@dataclass(frozen=True)
class LoadedCheckpoint:
    """net: in evaluation mode. spec: its architecture. card: what the checkpoint says of itself, plain data."""

    net: Classifier
    spec: ArchSpec
    card: Mapping[str, Any]


def is_own(path: str | Path) -> bool:
    """Whether the file is a checkpoint of this project; raises InputError where it cannot be read."""
    return "card" in read_weights_only(path)


def load_checkpoint(path: str | Path, expected: ArchSpec | None = None) -> LoadedCheckpoint:
    """The network in `path`, with every weight accounted for.

    Raises:
        InputError: for a missing file, one that is not of this project, or another architecture than `expected`.
    """
    content = read_weights_only(path)
    card, weights = content.get("card"), content.get("state_dict")
    if not isinstance(card, dict) or not set(card) >= _CARD_KEYS or not isinstance(weights, dict):
        raise InputError(
            f"checkpoint = {str(path)!r}: a checkpoint that this project wrote; it has no card with weights"
        )
    spec = ArchSpec.from_dict(card["arch"])
    if expected is not None and expected != spec:
        raise invalid("arch", expected.to_dict(), f"the checkpoint's own architecture, {spec.to_dict()}")
    channels, height, width = card["image_shape"]
    net = build(spec, card["num_classes"], (channels, height, width), seed=0)
    state = {key.removeprefix(_PREFIX): value for key, value in weights.items() if key.startswith(_PREFIX)}
    load_strictly(net, state, spec)
    return LoadedCheckpoint(net.eval(), spec, card)
