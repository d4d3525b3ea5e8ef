"""ImageNet (ILSVRC 2012), decoded while it is used: never in memory as a whole."""

import logging
from dataclasses import dataclass, replace

import numpy as np
import torch

from robust_arch.data.dataset import Dataset
from robust_arch.data.encoded import EncodedImages, FileImages
from robust_arch.data.folder_listing import list_images, list_mapped, read_labels
from robust_arch.data.image_folder import existing_folder
from robust_arch.data.images import ImageSet
from robust_arch.data.reading import Reading
from robust_arch.data.streamed import StreamedImages, available_cores
from robust_arch.errors import invalid, require_integer

log = logging.getLogger(__name__)

_LAYOUT = "train/<class>/ and val/<class>/, or val/ with data.val_labels"


@dataclass(frozen=True, kw_only=True)
class ImageNet(Dataset):
    """Images in root/train/<class>/ and root/val/<class>/, or directly in root/val/ with a file of their classes.

    Attributes:
        root: the folder.
        val_labels: file with lines `<image> <class>` for images directly in val/, relative to the root, such as
            LOC_val_solution.csv of Kaggle; None where val/ has class folders.
        image_size: side in pixels of the square images: of a random crop in training, else of the centre.
        resize: length of the shorter side before the centre is cropped.
        workers: processes that decode training batches; None for one per core, 0 for none.
    """

    root: str | None
    val_labels: str | None = None
    image_size: int = 224
    resize: int = 256
    workers: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.root is None:
            raise invalid("data.root", None, f"the folder that holds {_LAYOUT}")
        require_integer("data.image_size", self.image_size, 1)
        require_integer("data.resize", self.resize, self.image_size)
        require_integer("data.workers", self.workers, 0, optional=True)

    def as_recorded(self) -> "ImageNet":
        """With the number of cores here; the images are read from the root that the file names."""
        return replace(self, workers=None)

    def read(self) -> tuple[ImageSet, ImageSet]:
        """Both parts, of which only the names are read."""
        root = existing_folder(self.root, _LAYOUT)
        if self.val_labels is None:
            classes, parts, beside = list_images(root, ("train", "val"))
            listed = (parts["train"], parts["val"])
        else:
            classes, parts, beside = list_images(root, ("train",))
            source = root / self.val_labels
            listed = (parts["train"], list_mapped(root / "val", read_labels(source, classes), source))
            beside = [name for name in beside if name != "val"]
        train, test = (
            streamed(FileImages.listed(part), len(classes), self.image_size, self.resize, self.workers)
            for part in listed
        )
        unread = f" | not read: {beside}" if beside else ""
        log.info("%s in %s | train: %s | test: %s%s", self.name, root, train.reading, test.reading, unread)
        return train, test


def streamed(files: EncodedImages, num_classes: int, side: int, resize: int, workers: int | None) -> ImageSet:
    """Image files as a set whose images are decoded on access."""
    processes = available_cores() if workers is None else workers
    images = StreamedImages(files, np.arange(len(files)), side, resize, processes)
    reading = Reading(len(files), files.noted, files.skipped, {f"resized and cropped to {side}x{side}": len(files)})
    return ImageSet(images, torch.from_numpy(files.labels), num_classes, reading=reading)
