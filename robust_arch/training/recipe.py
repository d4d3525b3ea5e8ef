"""A recipe: every choice of the training that is not architecture, data, threat model or objective."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import nn
from torch.optim import Optimizer

from robust_arch.data.augment import CropFlip
from robust_arch.errors import invalid
from robust_arch.training.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """name: label in the records. batch_size: global, divided over devices. optimizer: from parameters to Optimizer.

    epochs: unless trainer.max_epochs says otherwise. gradient_clip: largest global norm of the gradient, None for
    no clipping. normalize: the network's first layer, "identity" or "dataset" (the training set's mean and std).
    """

    name: str
    epochs: int
    batch_size: int
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]
    schedule: Schedule
    augment: CropFlip
    gradient_clip: float | None = None
    normalize: str = "identity"
    drop_last: bool = True

    def __post_init__(self) -> None:
        for key in ("epochs", "batch_size"):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise invalid(f"recipe.{key}", value, "an integer of at least 1")
        if self.gradient_clip is not None and not self.gradient_clip > 0:
            raise invalid("recipe.gradient_clip", self.gradient_clip, "greater than 0, or null for none")
        if self.normalize not in ("identity", "dataset"):
            raise invalid("recipe.normalize", self.normalize, "identity or dataset")
