"""Test images before and after an attack, from the files that `evaluate.save_images=true` leaves beside a record."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

SHOWN, NETWORKS = 8, 4
"""Images of a strip, and networks with one."""
_MOST_PIXELS = 48  # of a side on the page; the noise of larger images would make its file large
_TENSORS = ("x", "x_adv", "label", "predicted")


@dataclass(frozen=True)
class AttackedImages:
    """The first test images of an evaluation.

    Attributes:
        attack: its name.
        clean: (n, H, W, C) in [0, 1].
        attacked: the same images under the attack.
        labels: (n,) their classes.
        predicted: (n,) the network's classes of the attacked ones.
    """

    attack: str
    clean: np.ndarray
    attacked: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray


def read_images(path: Path) -> AttackedImages | None:
    """The first images of a file; None if it is missing, damaged or was written by an earlier version."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            about = file.metadata() or {}
            x, x_adv, label, predicted = (file.get_slice(name)[:SHOWN] for name in _TENSORS)
            scale = int(about["max_value"])
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
    clean = x.astype(np.float64) / scale
    if clean.shape != x_adv.shape or clean.ndim != 4 or not len(label) == len(predicted) == len(clean):
        return None
    last = (0, 2, 3, 1)
    return AttackedImages(about.get("attack", ""), clean.transpose(last), x_adv.transpose(last), label, predicted)


def section(found: Mapping[str, AttackedImages]) -> list[dict[str, Any]]:
    """One strip per network: each image before and after the attack, and their difference."""
    return [_strip(name, images) for name, images in found.items()]


def _strip(name: str, images: AttackedImages) -> dict[str, Any]:
    change = images.attacked - images.clean
    largest = float(np.abs(change).max()) or 1.0
    return {
        "name": name,
        "attack": images.attack,
        "largest": f"{largest:.3g}",
        "columns": [
            {
                "label": int(label),
                "predicted": int(predicted),
                "clean": _png(clean),
                "attacked": _png(attacked),
                "change": _png(0.5 + difference / (2 * largest)),
            }
            for label, predicted, clean, attacked, difference in zip(
                images.labels, images.predicted, images.clean, images.attacked, change, strict=True
            )
        ],
    }


def _png(image: np.ndarray) -> str:
    """An image (H, W, C) in [0, 1] as base64."""
    from PIL import Image

    pixels = np.rint(255 * image.clip(0, 1)).astype(np.uint8)
    drawn = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels[:, :, :3])
    drawn.thumbnail((_MOST_PIXELS, _MOST_PIXELS))
    buffer = BytesIO()
    drawn.save(buffer, format="png", optimize=True)
    return b64encode(buffer.getvalue()).decode()
