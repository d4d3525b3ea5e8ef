"""Images in folders, root/{train,test}/<class>/<file>, decoded once into a cache outside the root."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from robust_arch.common.paths import cache_dir
from robust_arch.data.dataset import Dataset
from robust_arch.data.decoded import decoded, without_a_size
from robust_arch.data.encoded import FileImages
from robust_arch.data.folder_listing import PARTS, Listing, list_images
from robust_arch.data.image_decoding import MODES, Decoder
from robust_arch.data.images import ImageSet
from robust_arch.errors import invalid, require_integer

log = logging.getLogger(__name__)


def existing_folder(root: str | None, layout: str) -> Path:
    """The folder without symbolic links. layout: what it must hold, for the error.

    Raises:
        InputError: if there is none.
    """
    try:
        return Path(str(root)).expanduser().resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:  # not there, a circle of links, no path at all
        raise invalid("data.root", str(root), f"a folder that holds {layout}; {error}") from None


@dataclass(frozen=True, kw_only=True)
class ImageFolder(Dataset):
    """Classes are the folder names, sorted; the same in train and test.

    Attributes:
        root: the folder.
        image_size: side of the square images in pixels; for files of other sizes, the shorter side is resized to it and
            the centre cropped. None keeps the files' own size, which must be the same for all.
        channels: 3 (RGB) or 1 (grey).
        cache: folder for decoded arrays, by default the user's cache folder.
    """

    root: str | None
    image_size: int | None = None
    channels: int = 3
    cache: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.root is None:
            raise invalid("data.root", None, f"the folder that holds {self.layout}")
        if type(self.channels) is not int or self.channels not in MODES:
            raise invalid("data.channels", self.channels, "3 (RGB) or 1 (grey)")
        require_integer("data.image_size", self.image_size, 1, optional=True)

    def as_recorded(self) -> "ImageFolder":
        """With the user's own cache folder; the images are read from the root that the file names."""
        return replace(self, cache=None)

    @property
    def layout(self) -> str:
        """What the folder must hold."""
        return "train/<class>/ and test/<class>/"

    def listings(self, root: Path) -> tuple[list[str], tuple[Listing, Listing], list[str]]:
        """The names of the classes, the files to train and to test on, and what lies beside them."""
        classes, parts, beside = list_images(root)
        return classes, (parts[PARTS[0]], parts[PARTS[1]]), beside

    def read(self) -> tuple[ImageSet, ImageSet]:
        """Both parts, from the cache if no file has changed since; logs what became of the files."""
        root = existing_folder(self.root, self.layout)
        classes, listings, beside = self.listings(root)
        decoder = Decoder(self.channels, self.image_size)
        cache = Path(self.cache).expanduser() if self.cache else cache_dir() / "image_folder"
        train, test = (decoded(FileImages.listed(part), decoder, len(classes), cache) for part in listings)
        if train.image_shape != test.image_shape:
            found = f"train has {train.image_shape} and test {test.image_shape}"
            raise without_a_size(self.image_size, found)
        unread = f" | not read: {beside}" if beside else ""
        log.info("%s in %s | train: %s | test: %s%s", self.name, root, train.reading, test.reading, unread)
        return train, test
