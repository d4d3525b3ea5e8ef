"""When a study of many runs ends on a number of workers: list scheduling, with preemptions and failures."""

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

NEVER = float("inf")


@dataclass(frozen=True)
class Placed:
    """One run, or a part of one: which worker did it, from when until when, in seconds."""

    run: int
    worker: int
    start: float
    end: float


def schedule(seconds: Sequence[float], workers: int, between: float = 0.0) -> list[Placed]:
    """Each run in order on the worker that is free first, as joblib and a Slurm array start them.

    seconds: of each run. between: seconds that a worker needs from the end of a run to the start of the next.
    """
    if workers < 1:
        raise ValueError(f"workers = {workers}: at least 1")
    free = [(0.0, worker) for worker in range(workers)]
    placed = []
    for run, length in enumerate(seconds):
        start, worker = heapq.heappop(free)
        placed.append(Placed(run, worker, start, start + length))
        heapq.heappush(free, (start + length + between, worker))
    return placed


def makespan(placed: Iterable[Placed]) -> float:
    """When the last run ends; 0 for none."""
    return max((part.end for part in placed), default=0.0)


def lower_bound(seconds: Sequence[float], workers: int) -> float:
    """What no order can beat: an equal share of all the work, or the longest run."""
    return max(sum(seconds) / workers, max(seconds))


def longest_first(seconds: Sequence[float]) -> list[float]:
    """The runs by falling length (Graham 1969), which bounds the makespan by 4/3 of the optimum."""
    return sorted(seconds, reverse=True)


@dataclass(frozen=True)
class Disturbances:
    """What interrupts runs; each function is asked anew for every attempt.

    until_preemption: seconds of an attempt until its worker is taken away. until_failure: seconds until the run fails.
    unit: a run goes on from the last whole multiple of so many seconds: of a batch where the signal is heeded, of an
    epoch where it is killed. pause: seconds until a preempted worker is back. startup: seconds an attempt spends
    before it trains. retries: further attempts of a run that failed, after all others have ended.
    """

    until_preemption: Callable[[], float] = lambda: NEVER
    until_failure: Callable[[], float] = lambda: NEVER
    unit: float = 1.0
    pause: float = 0.0
    startup: float = 0.0
    retries: int = 1


@dataclass
class Outcome:
    """What came of a study. lost: seconds of training done twice; undone: runs that failed too often."""

    makespan: float = 0.0
    preemptions: int = 0
    failures: int = 0
    lost: float = 0.0
    undone: list[int] = field(default_factory=list)


def disturbed(seconds: Sequence[float], workers: int, disturbances: Disturbances) -> Outcome:
    """The study under preemptions, whose runs go on first, and failures, which wait for the next round."""
    outcome = Outcome()
    done = [0.0] * len(seconds)
    waiting = list(range(len(seconds)))
    for _ in range(disturbances.retries + 1):
        waiting = _round(waiting, seconds, done, workers, disturbances, outcome)
    outcome.undone = waiting
    return outcome


def _round(
    runs: Sequence[int],
    seconds: Sequence[float],
    done: list[float],
    workers: int,
    disturbances: Disturbances,
    outcome: Outcome,
) -> list[int]:
    """Launch the runs and wait for all; returns those that failed. done: seconds of each run that are saved."""
    free = [(outcome.makespan, worker) for worker in range(workers)]
    queue, requeued, failed = deque(runs), list[tuple[float, int]](), list[int]()
    while queue or requeued:
        now, worker = heapq.heappop(free)
        if requeued and (requeued[0][0] <= now or not queue):
            back, run = heapq.heappop(requeued)
            now = max(now, back)
        else:
            run = queue.popleft()
        need = seconds[run] - done[run]
        preempted, fails = disturbances.until_preemption(), disturbances.until_failure()
        end = min(disturbances.startup + need, preempted, fails)
        if end < disturbances.startup + need:
            _keep(run, max(0.0, end - disturbances.startup), done, disturbances.unit, outcome)
        free_again = now + end
        if end == disturbances.startup + need:
            done[run] = seconds[run]
        elif preempted <= fails:
            outcome.preemptions += 1
            free_again += disturbances.pause
            heapq.heappush(requeued, (free_again, run))
        else:
            outcome.failures += 1
            failed.append(run)
        outcome.makespan = max(outcome.makespan, now + end)
        heapq.heappush(free, (free_again, worker))
    return failed


def _keep(run: int, trained: float, done: list[float], unit: float, outcome: Outcome) -> None:
    """Round what is saved of a run down to whole units; count the rest as lost."""
    reached = done[run] + trained
    kept = max(done[run], reached // unit * unit)
    outcome.lost += reached - kept
    done[run] = kept
