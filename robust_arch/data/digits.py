"""The 1,797 handwritten digits of scikit-learn: real 8x8 images that come with an installed package."""

from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits

from robust_arch.data.dataset import Dataset
from robust_arch.data.images import ImageSet, stratified, without

_TEST_SIZE = 360  # a fifth; the set has no official test part, so this project fixes one


@dataclass(frozen=True, kw_only=True)
class Digits(Dataset):
    """UCI optical digits as scikit-learn ships them: 1 channel, 17 grey levels, 10 classes; 360 are the test set."""

    def read(self) -> tuple[ImageSet, ImageSet]:
        """No file is read or downloaded; the test part never changes with the split seed."""
        raw = load_digits()
        images = torch.from_numpy(raw.images).to(torch.uint8)[:, None]
        digits = ImageSet(images, torch.from_numpy(raw.target).long(), num_classes=10, max_value=16)
        test = stratified(digits.labels, _TEST_SIZE, seed=0)
        return digits.subset(without(len(digits), test)), digits.subset(test)
