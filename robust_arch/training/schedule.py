"""Learning-rate rules: a factor on the base rate as a function of training time in epochs."""

from dataclasses import dataclass
from typing import Protocol

from robust_arch.errors import invalid


class Schedule(Protocol):
    """A rule; `epoch` counts from 0 and has a fractional part inside an epoch."""

    def __call__(self, epoch: float, epochs: int) -> float:
        """The factor on the base learning rate at time `epoch` of `epochs`."""


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Times `factor` from each milestone on; a milestone is a fraction of all epochs.

    With milestones 0.75 and 0.9 and factor 0.1: the rule of Huang et al. 2021, lr x 0.1 from epoch e >= 0.75 E and
    x 0.01 from e >= 0.9 E, constant within an epoch.
    """

    milestones: tuple[float, ...]
    factor: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "milestones", tuple(self.milestones))
        if not all(0 < milestone < 1 for milestone in self.milestones):
            raise invalid("recipe.schedule.milestones", self.milestones, "fractions of all epochs, in (0, 1)")
        if not self.factor > 0:
            raise invalid("recipe.schedule.factor", self.factor, "greater than 0")

    def __call__(self, epoch: float, epochs: int) -> float:
        """Factor ** (milestones passed by the start of this epoch)."""
        passed = sum(int(epoch) >= milestone * epochs for milestone in self.milestones)
        return float(self.factor**passed)
