"""The report's section of test images before and after an attack."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import Any

import numpy as np

from robust_arch.analysis.attacked_images import AttackedImages, pixels

SHOWN, NETWORKS = 8, 4
"""Images of a strip, and networks with one."""
_MOST_PIXELS = 48  # of a side on the page; the noise of larger images would make its file large


def section(found: Mapping[str, AttackedImages]) -> list[dict[str, Any]]:
    """One strip per network: each image before and after the attack, and their difference."""
    return [
        {
            "name": name,
            "attack": images.attack,
            "largest": None if images.largest is None else f"{images.largest:.3g}",
            "pictures": dict(_pictures(images)),
            "labels": None if images.labels is None else images.labels.tolist(),
            "predicted": None if images.predicted is None else images.predicted.tolist(),
        }
        for name, images in found.items()
    ]


def _pictures(images: AttackedImages) -> Iterator[tuple[str, list[str]]]:
    """The rows of a strip; a file of an earlier version holds the attacked images alone."""
    rows = {"clean": images.clean, "attacked": images.attacked, "change": images.differences}
    for what, row in rows.items():
        if row is not None:
            yield what, [_png(image) for image in row]


def _png(image: np.ndarray) -> str:
    """An image (H, W, C) in [0, 1] as base64."""
    from PIL import Image

    drawn = Image.fromarray(pixels(image[:, :, 0] if image.shape[2] == 1 else image[:, :, :3]))
    drawn.thumbnail((_MOST_PIXELS, _MOST_PIXELS))
    buffer = BytesIO()
    drawn.save(buffer, format="png", optimize=True)
    return b64encode(buffer.getvalue()).decode()
