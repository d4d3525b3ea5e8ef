"""The architectures inside a budget that a surrogate predicts to be most robust, beside published rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from robust_arch.analysis.bounded import Bounded
from robust_arch.analysis.surrogate.gaussian_process import DRAWS, Prediction, Surrogate, Z
from robust_arch.analysis.surrogate.observations import Observations, observations_of, variables
from robust_arch.architectures import ArchSpec, Cost, cost
from robust_arch.common.statistics import RankCorrelation, rank_correlation
from robust_arch.errors import InputError, invalid
from robust_arch.search import Budget
from robust_arch.search.budget import Task
from robust_arch.search.candidates import spec_at
from robust_arch.study.recommend.candidates import candidates_inside, rules_inside

MOST = 300
"""Architectures that the surrogate learns from; of more, those whose costs are nearest to the budget."""
FAR = 1.0
"""Length scales to the nearest trained architecture beyond which a prediction extrapolates."""
_SHORTLIST = 30  # candidates whose predictors are measured
_SLACK = 0.05  # of a variable, by which a budget's tolerance may leave what was seen
Measure = Callable[[Sequence[ArchSpec]], np.ndarray]
"""From architectures to the values of their predictors, (M, P)."""


@dataclass(frozen=True)
class Entry:
    """An architecture with its prediction.

    Attributes:
        kind: how it was found.
        name: "1", "2", ... of proposals; the rule's name of others.
        spec: the architecture.
        cost: on the studies' images.
        value: predicted mean over seeds in percent.
        of_runs: the same, with the interval of the mean of `seeds` new runs.
        recorded: whether the studies have it.
        outside: variables in which it lies outside those seen, in words.
        distance: length scales to the nearest trained architecture.
    """

    kind: Literal["proposal", "rule"]
    name: str
    spec: ArchSpec
    cost: Cost
    value: Bounded
    of_runs: Bounded
    recorded: bool
    outside: tuple[str, ...]
    distance: float

    @property
    def extrapolates(self) -> bool:
        """Whether the prediction leaves what was seen."""
        return bool(self.outside) or self.distance > FAR


@dataclass(frozen=True)
class Check:
    """How the surrogate predicts architectures that were left out.

    Attributes:
        tau: Kendall's between predicted and observed means.
        covered: observed means inside their 95% intervals.
        n: observed means.
    """

    tau: RankCorrelation
    covered: int
    n: int


@dataclass(frozen=True)
class Recommendation:
    """Proposals, rules, and what may be said of them.

    Attributes:
        budget: that all meet.
        observations: what was learnt from.
        available: architectures in the studies, of which the observations may be a part.
        names: of the variables.
        candidates: number of architectures among which the proposals were chosen.
        step: of the candidates' widths.
        apart: least distance between two proposals, in doublings of a stage's depth or width.
        entries: proposals, best first, then rules.
        missing: rule to why it has no network inside.
        differences: rule to the first proposal's predicted robust accuracy minus the rule's, in points.
        check: on architectures that were left out.
        far: architectures far from what the others predict.
        seeds: new runs per architecture, for the intervals of their mean.
    """

    budget: Budget
    observations: Observations
    available: int
    names: tuple[str, ...]
    candidates: int
    step: int
    apart: float
    entries: tuple[Entry, ...]
    missing: Mapping[str, str]
    differences: Mapping[str, Bounded]
    check: Check
    far: tuple[str, ...]
    seeds: int


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        budget: of parameters, MACs or both.
        count: number of proposals.
        step: of their widths; None for the largest that leaves enough candidates.
        apart: least distance between two proposals, in doublings of a stage's depth or width; 0 for none.
        column: of results.csv that is predicted.
        where: columns of results.csv to the value that rows must have.
        predictors: columns of the frame that are variables too.
        seed: of every draw.
        draws: of the surrogate's hyperparameters.
        seeds: new runs per architecture, for the intervals of their mean.
    """

    budget: Budget
    count: int = 5
    step: int | None = None
    apart: float = 0.5
    column: str = "worst_case_acc"
    where: Mapping[str, str] | None = None
    predictors: Sequence[str] = ()
    seed: int = 0
    draws: int = DRAWS
    seeds: int = 3

    def __post_init__(self) -> None:
        if not self.budget.resources:
            raise invalid("--params, --macs", None, "a budget of parameters, of MACs, or both")


def recommend(frame: pd.DataFrame, request: Request, measure: Measure | None = None) -> Recommendation:
    """Learn from recorded runs, and predict candidates and the networks of published rules.

    With predictors, `measure` computes them for the candidates that the surrogate without them predicts best.

    Args:
        frame: rows of results.csv, of one study or of several.
        request: budget and settings.
        measure: of predictors; where there are any, and only there.

    Raises:
        InputError: if there are too few comparable architectures, none meets the budget, or predictors are not defined.
    """
    if bool(request.predictors) != (measure is not None):
        raise invalid("predictors", list(request.predictors), "predictors together with what measures them")
    everything = observations_of(frame, request.column, request.where, request.predictors)
    inside = candidates_inside(everything, request.budget, request.step, request.seed)
    rules, missing = rules_inside(everything, request.budget)
    observations = _nearest(everything, request.budget, request.seed)
    template, task, site = observations.specs[0], observations.task, observations.reference
    bare = replace(observations, extra=observations.extra[:, :0], predictors=())
    names, surrogate = _surrogate(bare, request)
    points, of_rules = inside.points, _points(list(rules.values()), inside.points.shape[1])
    x, x_rules = (variables(template, each, task)[1] for each in (points, of_rules))
    if measure is not None:
        points = points[np.argsort(-surrogate.means(x, site), kind="stable")[:_SHORTLIST]]
        names, surrogate = _surrogate(observations, request)
        points, x = _measured(measure, template, task, points)
        if not len(points):
            raise InputError(
                f"--predictors: {', '.join(request.predictors)} not defined for any candidate in the budget"
            )
        kept, x_rules = _measured(measure, template, task, of_rules)
        defined = {tuple(point) for point in kept.tolist()}
        for name in [name for name, spec in rules.items() if (*spec.depths, *spec.widths) not in defined]:
            missing[name] = "its predictors are not defined"
            del rules[name]
    chosen = _proposals(surrogate, site, x, points, request)
    shown = [spec_at(template, points[place]) for place in chosen]
    x = np.concatenate([x[chosen], x_rules])
    predicted = surrogate.predict(x, site)
    entries = _entries(names, surrogate, x, predicted, shown, rules, everything, request.seeds)
    return Recommendation(
        budget=request.budget,
        observations=observations,
        available=len(everything.names),
        names=names,
        candidates=len(inside.points),
        step=inside.step,
        apart=request.apart,
        entries=entries,
        missing=missing,
        differences={name: _difference(predicted, len(shown) + place) for place, name in enumerate(rules)},
        check=_check(surrogate, observations),
        far=tuple(observations.names[observations.member[place]] for place in surrogate.far),
        seeds=request.seeds,
    )


def _measured(measure: Measure, template: ArchSpec, task: Task, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points whose predictors are defined, and their variables."""
    extra = measure([spec_at(template, point) for point in points])
    defined = np.isfinite(extra).all(axis=1)
    points, extra = points[defined], extra[defined]
    if not len(points):
        return points, np.empty((0, 2 * len(template.depths) + 1 + extra.shape[1]))
    return points, variables(template, points, task, extra)[1]


def _points(specs: Sequence[ArchSpec], columns: int) -> np.ndarray:
    return np.array([[*spec.depths, *spec.widths] for spec in specs], dtype=np.int64).reshape(len(specs), columns)


def _nearest(observations: Observations, budget: Budget, seed: int) -> Observations:
    """At most 300 architectures, those nearest to the budget in a tenth of a doubling; of equals some at random."""
    if len(observations.names) <= MOST:
        return observations
    costs = [cost(spec, *observations.task) for spec in observations.specs]
    away = np.max(
        [np.abs(np.log2([getattr(each, key) / getattr(budget, key) for each in costs])) for key in budget.resources],
        axis=0,
    )
    chance = np.random.default_rng(seed).random(len(away))
    chosen = np.zeros(len(away), dtype=bool)
    chosen[np.lexsort((chance, np.floor(10 * away)))[:MOST]] = True
    return observations.part(chosen)


def _surrogate(observations: Observations, request: Request) -> tuple[tuple[str, ...], Surrogate]:
    names, x = variables(observations.specs[0], observations.points, observations.task, observations.extra)
    member = observations.member
    return (*names, *observations.predictors), Surrogate(
        x[member], observations.site, observations.y, observations.noise, member, request.seed, request.draws
    )


def _proposals(surrogate: Surrogate, site: int, x: np.ndarray, points: np.ndarray, request: Request) -> list[int]:
    """Positions of the candidates with the highest predicted means, those that do not extrapolate first.

    Each differs from those before it by at least `apart` doublings in a stage's depth or width.
    """
    means = surrogate.means(x, site)
    low, high = surrogate.x.min(axis=0) - _SLACK, surrogate.x.max(axis=0) + _SLACK
    beyond = ((x < low) | (x > high)).any(axis=1)
    logs = np.log2(points)
    chosen: list[int] = []
    for place in np.lexsort((-means, beyond)):
        if len(chosen) == request.count:
            break
        if all(np.abs(logs[place] - logs[other]).max() >= request.apart for other in chosen):
            chosen.append(int(place))
    return chosen


def _entries(
    names: Sequence[str],
    surrogate: Surrogate,
    x: np.ndarray,
    predicted: Prediction,
    proposals: Sequence[ArchSpec],
    rules: Mapping[str, ArchSpec],
    observations: Observations,
    seeds: int,
) -> tuple[Entry, ...]:
    low, high = surrogate.x.min(axis=0), surrogate.x.max(axis=0)
    distances = surrogate.distance(x)
    recorded = set(observations.specs)
    scatter = observations.scatter or 0.0  # with one run each, the predictions are for a new run
    entries = []
    numbered = {str(place): spec for place, spec in enumerate(proposals, start=1)}
    for place, (name, spec) in enumerate([*numbered.items(), *rules.items()]):
        outside = [
            f"{variable} {'above' if value > most else 'below'} those seen"
            for variable, value, least, most in zip(names, x[place], low, high, strict=True)
            if not least - _SLACK <= value <= most + _SLACK
        ]
        mean, deviation = float(predicted.mean[place]), float(predicted.deviation[place])
        entries.append(
            Entry(
                kind="proposal" if place < len(proposals) else "rule",
                name=name,
                spec=spec,
                cost=cost(spec, *observations.task),
                value=_interval(mean, deviation),
                of_runs=_interval(mean, float(np.hypot(deviation, scatter / np.sqrt(seeds)))),
                recorded=spec in recorded,
                outside=tuple(outside),
                distance=float(distances[place]),
            )
        )
    return tuple(entries)


def _difference(predicted: Prediction, rule: int) -> Bounded:
    return _interval(*predicted.difference(0, rule))


def _interval(value: float, deviation: float) -> Bounded:
    return Bounded(value, value - Z * deviation, value + Z * deviation)


def _check(surrogate: Surrogate, observations: Observations) -> Check:
    means, deviations = surrogate.left_out()
    inside = np.abs(observations.y - means) <= Z * deviations
    return Check(rank_correlation(means.tolist(), observations.y.tolist()), int(inside.sum()), len(inside))
