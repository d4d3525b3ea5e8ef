"""Attacked test images of a run beside the images that they were made from, as rows of a table."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from safetensors.torch import load_file

from robust_arch.common.files import read_arrays
from robust_arch.data import ImageSet
from robust_arch.runs import RecordedRun

COLUMNS = ("checkpoint", "weights", "attack", "image", "label", "correct", "clean", "attacked", "difference")


def attacked_images(run: RecordedRun, test: ImageSet, count: int) -> Iterator[dict[str, Any]]:
    """One row of COLUMNS per evaluation, attack and image: the first `count` images whose attacked form was saved.

    `image` is the position in `test`; `clean` and `attacked` are uint8 arrays (H, W, C), and so is `difference`, which
    is grey where nothing changed and reaches black and white at the largest change of any pixel.
    """
    for record in run.evaluations:
        flags = read_arrays(run.folder.evaluations / f"{record.eval_id}.npz") or {}
        for attack in record.attacks:
            path = run.folder.evaluations / f"{record.eval_id}.{attack}.safetensors"
            if attack not in flags or not path.is_file():
                continue
            saved = load_file(path)
            index, attacked = saved["index"][:count], saved["x_adv"][:count].numpy()
            clean = test.to_unit(test.images[index]).numpy()
            for place, position in enumerate(index.tolist()):
                change = attacked[place] - clean[place]
                yield {
                    "checkpoint": record.checkpoint,
                    "weights": record.weights,
                    "attack": attack,
                    "image": position,
                    "label": int(test.labels[position]),
                    "correct": bool(flags[attack][place]),
                    "clean": _pixels(clean[place]),
                    "attacked": _pixels(attacked[place]),
                    "difference": _pixels(0.5 + change / (2 * max(float(np.abs(change).max()), 1e-12))),
                }


def _pixels(image: np.ndarray) -> np.ndarray:
    """(C, H, W) in [0, 1] to (H, W, C) uint8."""
    return (255 * image).round().astype(np.uint8).transpose(1, 2, 0)
