"""Searches replayed on a table of architectures: the order in which each one evaluates them.

Every search gets the architectures as levels of features and sees the value of one after it asked for it. It never asks
twice. Random draws come from one generator per repetition.
"""

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import ndtr

from robust_arch.search.halving import kept

POPULATION, TOURNAMENT = 50, 10  # of regularised evolution; 25 of 100 in Real et al. 2019, for longer searches
STARTS = 10  # random architectures before TPE and the Gaussian process suggest any
CANDIDATES = 512  # random architectures among which the Gaussian process chooses, beside the neighbours of the best
DRAWS = 32  # of hyperparameters, among which the Gaussian process takes the most likely ones


@dataclass(frozen=True)
class Space:
    """A architectures with F features.

    Attributes:
        levels: (A, F) level of each feature, from 0.
        ordered: (F,) whether a feature's levels have an order, as numbers have and names have not.
        values: (A,) what a search maximises.
    """

    levels: np.ndarray
    ordered: np.ndarray
    values: np.ndarray
    _near: dict[int, np.ndarray] = field(default_factory=dict, repr=False)

    @cached_property
    def counts(self) -> np.ndarray:
        """(F,) number of levels."""
        return self.levels.max(axis=0) + 1

    @cached_property
    def coordinates(self) -> np.ndarray:
        """(A, V): ordered features from 0 to 1, the others as one column of zeros and ones per level, over sqrt(2)."""
        columns = []
        for feature, count in enumerate(self.counts):
            level = self.levels[:, feature]
            if self.ordered[feature]:
                columns.append(level[:, None] / max(count - 1, 1))
            else:
                columns.append((level[:, None] == np.arange(count)) / math.sqrt(2))
        return np.hstack(columns).astype(float)

    def neighbours(self, position: int) -> np.ndarray:
        """Architectures that differ in the fewest features."""
        if position not in self._near:
            away = (self.levels != self.levels[position]).sum(axis=1)
            away[position] = self.levels.shape[1] + 1
            self._near[position] = np.flatnonzero(away == away.min())
        return self._near[position]


Search = Callable[[Space, int, np.random.Generator], Iterator[int]]


def random_search(space: Space, budget: int, rng: np.random.Generator) -> Iterator[int]:
    """Every architecture in random order."""
    yield from rng.permutation(len(space.values))[:budget].tolist()


def evolution(space: Space, budget: int, rng: np.random.Generator) -> Iterator[int]:
    """Regularised evolution (Real et al. 2019): a child of the best of a random sample replaces the oldest."""
    seen: set[int] = set()
    population: deque[int] = deque(maxlen=POPULATION)
    for position in rng.permutation(len(space.values))[: min(POPULATION, budget)].tolist():
        population.append(position)
        seen.add(position)
        yield position
    while len(seen) < min(budget, len(space.values)):
        sample = [population[place] for place in rng.integers(0, len(population), TOURNAMENT)]
        child = int(rng.choice(space.neighbours(max(sample, key=lambda position: space.values[position]))))
        if child in seen and rng.random() < 0.1:  # a population that has seen all its neighbours goes on elsewhere
            child = int(rng.integers(len(space.values)))
        population.append(child)
        if child not in seen:
            seen.add(child)
            yield child


def tpe(space: Space, budget: int, rng: np.random.Generator) -> Iterator[int]:
    """Optuna's tree-structured Parzen estimator; a suggestion is the nearest architecture that was not asked for."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(seed=int(rng.integers(2**31)), n_startup_trials=STARTS)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    left = np.ones(len(space.values), dtype=bool)
    scale = np.where(space.ordered, np.maximum(space.counts - 1, 1), 1)
    for _ in range(min(budget, len(left))):
        trial = study.ask()
        wanted = np.array(
            [
                trial.suggest_int(f"f{feature}", 0, int(count) - 1)
                if space.ordered[feature]
                else trial.suggest_categorical(f"f{feature}", list(range(int(count))))
                for feature, count in enumerate(space.counts)
            ]
        )
        away = np.where(space.ordered, np.abs(space.levels - wanted) / scale, space.levels != wanted).sum(axis=1)
        position = int(np.argmin(np.where(left, away + 1e-6 * rng.random(len(away)), np.inf)))
        left[position] = False
        yield position
        study.tell(trial, float(space.values[position]))


@dataclass(frozen=True)
class Hyperparameters:
    """Of a Gaussian process on y of standard deviation 1."""

    smooth: float
    slope: float
    own: float
    length: float


def covariance(first: np.ndarray, second: np.ndarray, given: Hyperparameters) -> np.ndarray:
    """Matern 5/2 plus a linear part, without what an architecture has of its own. first: (N, V); second: (M, V)."""
    squares = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1) - 2 * first @ second.T
    away = np.sqrt(5 * np.maximum(squares, 0)) / given.length
    return np.asarray(given.smooth * (1 + away + away**2 / 3) * np.exp(-away) + given.slope * first @ second.T)


def factor(x: np.ndarray, given: Hyperparameters) -> np.ndarray:
    """The lower Cholesky factor of the covariance of N observations."""
    matrix = covariance(x, x, given)
    matrix[np.diag_indices_from(matrix)] += given.own + 1e-6
    return np.linalg.cholesky(matrix)


def likeliest(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> Hyperparameters:
    """The most likely of hyperparameters that are drawn from wide log-normal priors."""

    def likelihood(given: Hyperparameters) -> float:
        lower = factor(x, given)
        return float(-0.5 * np.sum(solve_triangular(lower, y, lower=True) ** 2) - np.log(np.diag(lower)).sum())

    means, deviations = np.log([0.3, 0.02, 0.01, 1.0]), np.array([2.0, 2.0, 2.0, 0.8])
    drawn = np.exp(means + deviations * rng.standard_normal((DRAWS, 4)))
    return max((Hyperparameters(*map(float, each)) for each in drawn), key=likelihood)


def predicted(
    x: np.ndarray, y: np.ndarray, others: np.ndarray, given: Hyperparameters
) -> tuple[np.ndarray, np.ndarray]:
    """(M,) means and standard deviations at others, from y at x."""
    lower = factor(x, given)
    across = solve_triangular(lower, covariance(x, others, given), lower=True)
    mean = solve_triangular(lower, y, lower=True) @ across
    own = given.smooth + given.slope * (others**2).sum(axis=1)
    return np.asarray(mean), np.sqrt(np.maximum(own - (across**2).sum(axis=0), 1e-12))


def gaussian_process(space: Space, budget: int, rng: np.random.Generator) -> Iterator[int]:
    """Expected improvement under a Gaussian process, among random architectures and the neighbours of the best.

    Hyperparameters are drawn again whenever the number of evaluations has grown by half.
    """
    x = space.coordinates - space.coordinates.mean(axis=0)
    count = len(space.values)
    asked = rng.permutation(count)[: min(STARTS, budget)].tolist()
    yield from asked
    left = np.ones(count, dtype=bool)
    left[asked] = False
    given, fitted = None, 0
    while len(asked) < min(budget, count):
        seen = space.values[asked]
        y = (seen - seen.mean()) / max(float(seen.std()), 1e-9)
        if given is None or len(asked) >= 1.5 * fitted:
            given, fitted = likeliest(x[asked], y, rng), len(asked)
        near = space.neighbours(asked[int(np.argmax(seen))])
        open_ = np.flatnonzero(left)
        drawn = open_ if len(open_) <= CANDIDATES else rng.choice(open_, CANDIDATES, replace=False)
        candidates = np.union1d(drawn, near[left[near]])
        mean, deviation = predicted(x[asked], y, x[candidates], given)
        z = (mean - y.max()) / deviation
        gain = deviation * (z * ndtr(z) + np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi))
        position = int(candidates[np.argmax(gain)])
        left[position] = False
        asked.append(position)
        yield position


@dataclass(frozen=True)
class Schedule:
    """What successive halving, or ASHA, made of a plan.

    Attributes:
        spent: epochs of all runs, in epochs of a run of mean cost.
        ended: when the last run ended, in the same unit, on so many workers.
        found: when the first full run of a good architecture ended; infinite if there was none.
        chosen: the architecture with the best full run.
    """

    spent: float
    ended: float
    found: float
    chosen: int


@dataclass(frozen=True)
class Curves:
    """A architectures after every rung: (A, R) what a search sees.

    Attributes:
        seen: (A, R) higher is better.
        rungs: (R,) epochs.
        cost: (A,) of an epoch, 1 in the mean.
        good: (A,) whether an architecture is within the noise of the best of the plan.
        eta: of n runs of a rung n / eta go on.
    """

    seen: np.ndarray
    rungs: tuple[int, ...]
    cost: np.ndarray
    good: np.ndarray
    eta: int

    def duration(self, position: int, rung: int) -> float:
        """From the rung before, since a run goes on where it stopped."""
        before = self.rungs[rung - 1] if rung else 0
        return float((self.rungs[rung] - before) * self.cost[position])


def halving(curves: Curves, order: list[int], workers: int) -> Schedule:
    """Successive halving: a rung begins when the one before has ended, as in hydra/sweeper=halving."""
    remaining, spent, now, found = order, 0.0, 0.0, math.inf
    for rung in range(len(curves.rungs)):
        free = [now] * workers
        for position in remaining:
            end = heapq.heappop(free) + curves.duration(position, rung)
            heapq.heappush(free, end)
            spent += curves.duration(position, rung)
            now = max(now, end)
            if rung == len(curves.rungs) - 1 and curves.good[position]:
                found = min(found, end)
        ranked = sorted(remaining, key=lambda position: -curves.seen[position, rung])
        if rung < len(curves.rungs) - 1:
            remaining = ranked[: kept(len(remaining), curves.eta)]
    return Schedule(spent, now, found, ranked[0])


def asha(curves: Curves, order: list[int], workers: int) -> Schedule:
    """Asynchronous successive halving (Li et al. 2020): a free worker promotes if it can, or starts an architecture.

    It promotes the best floor(n / eta) of the n that have ended a rung so far. Once no further one can arrive at a
    rung, ceil(n / eta) are promoted, as in successive halving.
    """
    return _Asha(curves, order).run(workers)


class _Asha:
    def __init__(self, curves: Curves, order: list[int]) -> None:
        self.curves, self.waiting = curves, deque(order)
        self.ended: list[list[int]] = [[] for _ in curves.rungs]
        self.promoted: list[set[int]] = [set() for _ in curves.rungs]
        self.running: list[tuple[float, int, int]] = []  # end, architecture, rung

    def run(self, workers: int) -> Schedule:
        spent, now, found, last = 0.0, 0.0, math.inf, len(self.curves.rungs) - 1
        while True:
            while len(self.running) < workers and (job := self._job()) is not None:
                duration = self.curves.duration(*job)
                spent += duration
                heapq.heappush(self.running, (now + duration, *job))
            if not self.running:
                best = max(self.ended[last], key=lambda position: self.curves.seen[position, last])
                return Schedule(spent, now, found, best)
            now = self.running[0][0]
            while self.running and self.running[0][0] == now:  # what ends together is known together
                _, position, rung = heapq.heappop(self.running)
                self.ended[rung].append(position)
                if rung == last and self.curves.good[position]:
                    found = min(found, now)

    def _job(self) -> tuple[int, int] | None:
        below = range(len(self.curves.rungs) - 1)
        for rung in reversed(below):
            if (job := self._promotion(rung, len(self.ended[rung]) // self.curves.eta)) is not None:
                return job
        if self.waiting:
            return self.waiting.popleft(), 0
        for rung in below:
            if any(running <= rung for _, _, running in self.running):
                return None
            if (job := self._promotion(rung, kept(len(self.ended[rung]), self.curves.eta))) is not None:
                return job
        return None

    def _promotion(self, rung: int, quota: int) -> tuple[int, int] | None:
        top = sorted(self.ended[rung], key=lambda position: -self.curves.seen[position, rung])[:quota]
        chosen = next((position for position in top if position not in self.promoted[rung]), None)
        if chosen is None:
            return None
        self.promoted[rung].add(chosen)
        return chosen, rung + 1


SEARCHES: dict[str, Search] = {
    "random": random_search,
    "evolution": evolution,
    "tpe": tpe,
    "gaussian_process": gaussian_process,
}
