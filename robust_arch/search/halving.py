"""The rule of successive halving: lengths of the rungs and promotions (Jamieson & Talwalkar 2016)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robust_arch.errors import InputError, invalid
from robust_arch.search.grid import is_count, is_number

_DIGITS = 4  # of percent; accuracies are recorded in single precision, in which equal counts of images can differ
RESOURCES = ("trainer.max_epochs", "trainer.limit_train_batches")


@dataclass(frozen=True, kw_only=True)
class Halving:
    """The keys of `hydra/sweeper=halving`, checked.

    Attributes:
        resource: the key whose values the rungs are.
        rungs: its values, increasing; if None they follow from min, max and eta.
        min: lower bound of the first rung.
        max: the last rung.
        eta: of n architectures ceil(n / eta) are promoted.
        tie_points: architectures whose held-out robust accuracy is at most this many points from the nearest rival
            across the cut are tied with it.
        tie_seeds: further seeds that break ties.
    """

    resource: str = "trainer.max_epochs"
    rungs: Sequence[int] | None = None
    min: int | None = None
    max: int | None = None
    eta: int = 3
    tie_points: float = 0.0
    tie_seeds: Sequence[int] = ()

    def __post_init__(self) -> None:
        if self.resource not in RESOURCES:
            raise invalid("hydra.sweeper.resource", self.resource, f"one of {', '.join(RESOURCES)}")
        if not is_count(self.eta, 2):
            raise invalid("hydra.sweeper.eta", self.eta, "an integer of at least 2")
        if not is_number(self.tie_points) or not 0 <= self.tie_points <= 100:
            raise invalid("hydra.sweeper.tie_points", self.tie_points, "percentage points, from 0 to 100")
        seeds = self.tie_seeds
        if not isinstance(seeds, list | tuple) or not all(is_count(seed, 0) for seed in seeds):
            raise invalid("hydra.sweeper.tie_seeds", seeds, "a list of integers of at least 0, or an empty one")
        if len(set(seeds)) != len(seeds):
            raise invalid("hydra.sweeper.tie_seeds", seeds, "different integers")
        object.__setattr__(self, "rungs", self._checked_rungs())

    def _checked_rungs(self) -> tuple[int, ...]:
        if self.rungs is None:
            return geometric_rungs(self.min, self.max, self.eta)
        if self.min is not None or self.max is not None:
            raise InputError("hydra.sweeper: set either rungs, or min and max from which they follow")
        is_list = isinstance(self.rungs, list | tuple) and all(map(is_count, self.rungs))
        if not is_list or not self.rungs or list(self.rungs) != sorted(set(self.rungs)):
            raise invalid("hydra.sweeper.rungs", self.rungs, "an increasing list of integers, like [3,9,27]")
        return tuple(self.rungs)

    @property
    def values(self) -> tuple[int, ...]:
        """The resource's value at each rung."""
        return tuple(self.rungs or ())

    def require_other_seeds(self, seeds: Sequence[int]) -> None:
        """Raise InputError if a seed that breaks ties is one of the study's `seeds`."""
        if set(self.tie_seeds) & set(seeds):
            allowed = f"other seeds than the study's {list(seeds)}"
            raise invalid("hydra.sweeper.tie_seeds", list(self.tie_seeds), allowed)

    def schedule(self, architectures: int) -> tuple[int, ...]:
        """How many architectures each rung has if none fails."""
        counts = [architectures]
        for _ in self.values[1:]:
            counts.append(kept(counts[-1], self.eta))
        return tuple(counts)


def geometric_rungs(least: Any, most: Any, eta: int) -> tuple[int, ...]:
    """The integer parts of most, most / eta, most / eta^2... that are at least `least`, increasing (Li et al. 2018).

    Raises:
        InputError: unless 1 <= least <= most.
    """
    if not is_count(most):
        raise invalid("hydra.sweeper.max", most, "an integer of at least 1, as hydra.sweeper.rungs is null")
    if not is_count(least) or least > most:
        raise invalid("hydra.sweeper.min", least, f"an integer from 1 to hydra.sweeper.max = {most}")
    rungs = [most]
    while rungs[-1] // eta >= least:
        rungs.append(rungs[-1] // eta)
    return tuple(reversed(rungs))


def kept(count: int, eta: int) -> int:
    """How many of `count` architectures are promoted: ceil(count / eta)."""
    return -(-count // eta)


def mean_or_none(values: Sequence[float | None]) -> float | None:
    """The mean over seeds, in the unit of the values; None if a run failed or diverged."""
    numbers = [value for value in values if value is not None]
    return round(math.fsum(numbers) / len(numbers), _DIGITS) if numbers and len(numbers) == len(values) else None


def tied(values: Sequence[float | None], keep: int, tie_points: float) -> tuple[int, ...]:
    """The positions of the architectures between which the cut after the best `keep` does not decide.

    values: in plan order, in percent, None for a failed one. Tied are those above the cut at most `tie_points` better
    than the best below it, and those below at most `tie_points` worse than the worst above.
    """
    numbers = {i: value for i, value in enumerate(values) if value is not None}
    order = sorted(numbers, key=lambda i: -numbers[i])
    above, below = order[:keep], order[keep:]
    if not above or not below:
        return ()
    worst, best = numbers[above[-1]], numbers[below[0]]
    near_above = [i for i in above if round(numbers[i] - best, _DIGITS) <= tie_points]
    near_below = [i for i in below if round(worst - numbers[i], _DIGITS) <= tie_points]
    return tuple(sorted([*near_above, *near_below]))


def ranking(
    values: Sequence[float | None], keep: int, tie_points: float, with_ties: Mapping[int, float | None]
) -> tuple[int, ...]:
    """Positions of the architectures, best first; failed ones come last, equal ones in plan order.

    with_ties: the value of each tied one averaged over all its seeds, which decides among them; None if one of those
    runs failed. Architectures that are not tied, or not in it, are ordered by `values`.
    """
    numbers = {i: value for i, value in enumerate(values) if value is not None and with_ties.get(i, value) is not None}
    order = sorted(numbers, key=lambda i: -numbers[i])
    decided = {i: value for i, value in with_ties.items() if i in numbers and value is not None}
    if block := [i for i in tied(values, keep, tie_points) if i in decided]:
        first = min(map(order.index, block))
        rest = [i for i in order if i not in block]
        order = [*rest[:first], *sorted(block, key=lambda i: -decided[i]), *rest[first:]]
    return (*order, *(i for i in range(len(values)) if i not in numbers))
