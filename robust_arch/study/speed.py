"""How fast runs train, from those that are recorded: the estimator of `robust-arch plan` and `robust-arch status`."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Speed:
    """The median speed of trainings on the same images.

    Attributes:
        rate: Seconds per multiply-accumulate (per image) and epoch.
        trainings: The number of trainings that it is the median of.
    """

    rate: float
    trainings: int

    @classmethod
    def of(cls, recorded: Iterable[tuple[float, int, int]]) -> "Speed | None":
        """From seconds, MACs per image and epochs of each training; None without any."""
        rates = [seconds / (macs * epochs) for seconds, macs, epochs in recorded if macs * epochs]
        return cls(statistics.median(rates), len(rates)) if rates else None

    def seconds(self, macs: int, epochs: int) -> float:
        """Seconds that `epochs` epochs of a network with `macs` MACs take."""
        return self.rate * macs * epochs
