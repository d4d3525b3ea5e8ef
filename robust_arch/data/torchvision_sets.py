"""The standard data sets as torchvision reads them, downloaded on first use."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision import datasets
from torchvision.transforms import functional as F

from robust_arch.common.paths import cache_dir
from robust_arch.data.dataset import Dataset
from robust_arch.data.images import ImageSet, require_memory
from robust_arch.errors import InputError, invalid, require_integer

# what must be below data.root, for the message without a network
_FILES = {
    "CIFAR10": "the folder cifar-10-batches-py, unpacked from cifar-10-python.tar.gz,",
    "CIFAR100": "the folder cifar-100-python, unpacked from cifar-100-python.tar.gz,",
    "MNIST": "MNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte",
    "SVHN": "train_32x32.mat and test_32x32.mat",
}
_RESIZE_CHUNK = 4096  # images resized at once, to bound memory


@dataclass(frozen=True, kw_only=True)
class TorchvisionSet(Dataset):
    """A data set of torchvision, whole in memory, with its official training and test parts.

    Attributes:
        source: the class in torchvision.datasets.
        root: folder of its files, by default in the user's cache folder.
        image_size: side in pixels to which the (square) images are resized; None keeps their own.
        download: whether missing files may be downloaded.
    """

    source: str
    root: str | None = None
    image_size: int | None = None
    download: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.source not in _FILES:
            raise invalid("data.source", self.source, f"one of {', '.join(_FILES)}")
        require_integer("data.image_size", self.image_size, 1, optional=True)

    def as_recorded(self) -> "TorchvisionSet":
        """From the root that the file names, or the user's cache folder; nothing is downloaded."""
        return replace(self, download=False)

    @property
    def folder(self) -> Path:
        """Where the files are."""
        # pathlib's expanduser raises for an unknown user
        return Path(os.path.expanduser(self.root)) if self.root else cache_dir() / "torchvision"  # noqa: PTH111

    def read(self) -> tuple[ImageSet, ImageSet]:
        """Training and test part, with the checks of the official files that torchvision makes."""
        train, test = (self._image_set(self._open(part)) for part in ("train", "test"))
        return train, test

    def _open(self, part: str) -> Any:
        """The torchvision object of a part."""
        kind = getattr(datasets, self.source)
        chosen = {"split": part} if self.source == "SVHN" else {"train": part == "train"}
        # torchvision raises whatever its readers and the network raise: a missing, damaged or half-downloaded file
        try:
            return kind(self.folder, download=False, **chosen)
        except Exception as error:
            fault = f"({error}), and data.download is false, as for every data set that only a checkpoint names"
        if self.download:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                return kind(self.folder, download=True, **chosen)
            except Exception as error:
                fault = f"and could not be downloaded ({error})"
        raise InputError(
            f"data.root = {str(self.folder)!r}: {self.source} is not there or damaged {fault}; put "
            f"{_FILES[self.source]} into that folder, or set data=<set> data.root=<where it is>"
        )

    def _image_set(self, source: Any) -> ImageSet:
        images = torch.as_tensor(np.asarray(source.data))
        if images.ndim == 3:  # grey: (N, H, W)
            images = images[:, None]
        elif images.shape[-1] == 3:  # (N, H, W, C)
            images = images.permute(0, 3, 1, 2)
        images, size = images.contiguous(), self.image_size
        if size is not None and images.shape[-2:] != (size, size):
            require_memory("data.image_size", size, images.shape[0] * images.shape[1] * size**2)
            chunks = torch.split(images, _RESIZE_CHUNK)
            images = torch.cat([F.resize(chunk, [size, size], antialias=True) for chunk in chunks])  # bilinear
        labels = torch.as_tensor(np.asarray(source.labels if self.source == "SVHN" else source.targets)).long()
        return ImageSet(images, labels, num_classes=100 if self.source == "CIFAR100" else 10)
