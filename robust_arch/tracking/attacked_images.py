"""Attacked test images of a run beside the images that they were made from, as rows of a table."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from robust_arch.analysis.attacked_images import AttackedImages, channels_last, pixels, read_images
from robust_arch.data import ImageSet
from robust_arch.runs import RecordedRun

COLUMNS = ("checkpoint", "weights", "attack", "image", "label", "correct", "clean", "attacked", "difference")


def attacked_images(run: RecordedRun, test: ImageSet, count: int) -> Iterator[dict[str, Any]]:
    """One row of COLUMNS per evaluation, attack and image: the first `count` images whose attacked form was saved.

    `image` is the position in the test set; `clean`, `attacked` and `difference` are uint8 arrays (H, W, C). In
    `difference`, grey is no change, and black and white are the largest change of any pixel of these images.
    """
    for record in run.evaluations:
        flags = run.folder.outcomes(record.eval_id or "") or {}
        for attack in record.attacks:
            images = read_images(run.folder, record, attack, count) if attack in flags else None
            if images is not None and images.clean is None and run.facts and record.data == run.facts.data:
                images = _completed(images, test)
            if images is None or images.clean is None or images.labels is None or images.differences is None:
                continue
            parts = (images.index, images.labels, flags[attack], images.clean, images.attacked, images.differences)
            for position, label, correct, clean, attacked, difference in zip(*parts, strict=False):
                yield {
                    "checkpoint": record.checkpoint,
                    "weights": record.weights,
                    "attack": attack,
                    "image": int(position),
                    "label": int(label),
                    "correct": bool(correct),
                    "clean": pixels(clean),
                    "attacked": pixels(attacked),
                    "difference": pixels(difference),
                }


def _completed(images: AttackedImages, test: ImageSet) -> AttackedImages:
    """Images of an earlier version's file, which holds neither clean images nor labels, with those of the test set."""
    index = torch.tensor(images.index)
    clean = test.to_unit(test.images[index]).numpy()
    return replace(images, clean=channels_last(clean), labels=test.labels[index].numpy())
