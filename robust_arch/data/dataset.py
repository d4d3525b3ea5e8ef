"""Data sets: a training part, a held-out part for selection, and a test part."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from robust_arch.common.randomness import derive
from robust_arch.data.extra import ExtraImages
from robust_arch.data.images import ImageSet, stratified, stratified_order, without
from robust_arch.errors import invalid, require_integer, require_name


@dataclass(frozen=True)
class Splits:
    """The parts of a data set.

    Attributes:
        train: to fit the weights.
        val: held out of the training set, for selection.
        test: to report.
        extra: images from elsewhere that are mixed into the training batches; they are never selected or reported on.
    """

    train: ImageSet
    val: ImageSet
    test: ImageSet
    extra: ExtraImages | None = None

    def training_fingerprint(self) -> str:
        """Of the images that determine training: those for fitting, those for selection, and extra ones."""
        extra = "" if self.extra is None else f"-{self.extra.fingerprint()}"
        return f"{self.train.fingerprint()}-{self.val.fingerprint()}{extra}"


@dataclass(frozen=True, kw_only=True)
class Dataset(ABC):
    """A data set by name; subclasses read it, the seeded class-stratified split is the same for all.

    Attributes:
        name: label in the records.
        val_fraction: fraction of the training set that is held out, in (0, 1).
        train_images: number of images to train on, drawn by class from those that are not held out; None takes all. A
            smaller number draws a subset of what a larger one draws; the held-out and the test part stay the same.
        split_seed: seed of both draws.
        eps: the usual radius on this data, by norm: the default of threat.eps.
    """

    name: str
    val_fraction: float = 0.05
    train_images: int | None = None
    split_seed: int = 0
    eps: Mapping[str, float | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_name("data.name", self.name)
        if not 0 < self.val_fraction < 1:
            raise invalid("data.val_fraction", self.val_fraction, "between 0 and 1, both excluded")
        require_integer("data.train_images", self.train_images, 1, optional=True)
        require_integer("data.split_seed", self.split_seed, 0)

    def as_recorded(self) -> "Dataset":
        """The same data set with settings that are safe to take from a file: nothing that they name is written."""
        return self

    @abstractmethod
    def read(self) -> tuple[ImageSet, ImageSet]:
        """The official training and test sets."""

    def load(self) -> Splits:
        """Read both parts, and hold out a part of the training set."""
        train, test = self.read()
        if train.num_classes < 2:
            raise invalid("data.name", self.name, f"at least 2 classes; found {train.num_classes}")
        count = max(1, round(self.val_fraction * len(train)))
        held_out = stratified(train.labels, count, self.split_seed)
        rest = without(len(train), held_out)
        if not len(rest):
            raise invalid("data.val_fraction", self.val_fraction, f"fewer than all {len(train)} training images")
        return Splits(train.subset(self._to_train_on(train, rest)), train.subset(held_out), test)

    def _to_train_on(self, train: ImageSet, rest: Tensor) -> Tensor:
        """The positions, ascending, that `train_images` takes from `rest`, which is not held out."""
        if self.train_images is None:
            return rest
        if self.train_images > len(rest):
            allowed = f"at most the {len(rest)} training images that are not held out"
            raise invalid("data.train_images", self.train_images, allowed)
        labels = train.labels[rest]
        taken = stratified_order(labels, derive(self.split_seed, "train_images"))[: self.train_images].sort().values
        if missing := sorted(set(labels.tolist()) - set(labels[taken].tolist())):
            allowed = f"enough for an image of each class; of {len(missing)} classes there would be none"
            raise invalid("data.train_images", self.train_images, allowed)
        return rest[taken]
