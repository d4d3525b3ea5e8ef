"""The 1,797 handwritten digits that scikit-learn ships: real images of 8x8 pixels."""

from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits

from robust_arch.data.dataset import Dataset
from robust_arch.data.images import ImageSet, stratified, without

_TEST_SIZE = 360  # a fifth; the set has no official test part, so this project fixes one


@dataclass(frozen=True, kw_only=True)
class Digits(Dataset):
    """UCI optical digits: 1 channel, 17 grey levels, 10 classes; 360 images are the test set."""

    def read(self) -> tuple[ImageSet, ImageSet]:
        """Nothing is downloaded; the test part does not depend on the split seed."""
        raw = load_digits()
        images = torch.from_numpy(raw.images).to(torch.uint8)[:, None]
        digits = ImageSet(images, torch.from_numpy(raw.target).long(), num_classes=10, max_value=16)
        test = stratified(digits.labels, _TEST_SIZE, seed=0)
        return digits.subset(without(len(digits), test)), digits.subset(test)
