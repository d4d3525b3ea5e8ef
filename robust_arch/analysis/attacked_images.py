"""Attacked test images, from the files that `evaluate.save_images=true` leaves beside a record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from robust_arch.runs import Evaluation, RunFolder

if TYPE_CHECKING:
    from collections.abc import Mapping

_LATER = ("x", "label", "predicted")


@dataclass(frozen=True)
class AttackedImages:
    """The first n test images of an evaluation under one attack.

    Attributes:
        attack: its name.
        index: (n,) positions in the test set.
        attacked: (n, H, W, C) in [0, 1].
        clean: the same images without the attack; None in a file of an earlier version, as are the next two.
        labels: (n,) their classes.
        predicted: (n,) the network's classes of the attacked ones.
    """

    attack: str
    index: np.ndarray
    attacked: np.ndarray
    clean: np.ndarray | None = None
    labels: np.ndarray | None = None
    predicted: np.ndarray | None = None

    @property
    def largest(self) -> float | None:
        """The largest change of any pixel."""
        return None if self.clean is None else float(np.abs(self.attacked - self.clean).max())

    @property
    def differences(self) -> np.ndarray | None:
        """(n, H, W, C) in [0, 1]: grey where nothing changed, black or white where a pixel changed by `largest`."""
        if self.clean is None:
            return None
        return np.asarray(0.5 + (self.attacked - self.clean) / (2 * (self.largest or 1.0)))


def read_images(run: RunFolder, record: Evaluation, attack: str, count: int) -> AttackedImages | None:
    """The first `count` images; None if they were not saved with the recorded attack, or the file is damaged."""
    from safetensors import SafetensorError, safe_open

    if not record.attacks[attack].images:  # a file may be left of an earlier seed
        return None
    try:
        with safe_open(run.evaluations / f"{record.eval_id}.{attack}.safetensors", framework="np") as file:
            names = set(file.keys())
            held = {name: file.get_slice(name)[:count] for name in ("index", "x_adv", *_LATER) if name in names}
            scale = int((file.metadata() or {}).get("max_value", 0))
    except (OSError, SafetensorError, ValueError):
        return None
    return _images(attack, held, scale)


def _images(attack: str, held: Mapping[str, np.ndarray], scale: int) -> AttackedImages | None:
    attacked, index = held.get("x_adv"), held.get("index")
    if attacked is None or index is None or attacked.ndim != 4 or not 0 < len(attacked) == len(index):
        return None
    if not scale or not held.keys() >= set(_LATER):
        return AttackedImages(attack, index, channels_last(attacked))
    x, labels, predicted = (held[name] for name in _LATER)
    if x.shape != attacked.shape or not len(labels) == len(predicted) == len(x):
        return None
    return AttackedImages(attack, index, channels_last(attacked), channels_last(x / scale), labels, predicted)


def channels_last(images: np.ndarray) -> np.ndarray:
    """(n, C, H, W) to (n, H, W, C)."""
    return images.transpose(0, 2, 3, 1)


def pixels(image: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as uint8."""
    return np.asarray(np.rint(255 * image.clip(0, 1)), dtype=np.uint8)
