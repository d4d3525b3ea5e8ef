"""Tiny-ImageNet: 200 classes of 64x64 images, in the folder of the official zip file."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from robust_arch.data.folder_listing import Listing, list_images, list_mapped, read_labels
from robust_arch.data.image_folder import ImageFolder

_ANNOTATIONS = "val/val_annotations.txt"


@dataclass(frozen=True, kw_only=True)
class TinyImageNet(ImageFolder):
    """Trains on train/<class>/images/ and tests on val/images/, as the official test part has no labels."""

    @property
    def layout(self) -> str:
        """The unpacked zip file."""
        return f"train/<class>/images/, val/images/ and {_ANNOTATIONS}"

    def listings(self, root: Path) -> tuple[list[str], tuple[Listing, Listing], list[str]]:
        """Classes in the order of their names (WordNet ids); the files of bounding boxes are skipped."""
        classes, parts, beside = list_images(root, ("train",))
        train = parts["train"]
        noted = Counter({reason: count for reason, count in train.noted.items() if reason != "in sub-folders"})
        annotations = root / _ANNOTATIONS
        test = list_mapped(root / "val" / "images", read_labels(annotations, classes), annotations)
        return classes, (replace(train, noted=noted), test), [name for name in beside if name != "val"]
