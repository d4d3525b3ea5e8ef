"""Architectures inside a budget, drawn around those that were trained, and those of published rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from robust_arch.analysis.formatting import counted
from robust_arch.analysis.surrogate.observations import Observations
from robust_arch.architectures import ArchSpec, cost
from robust_arch.architectures.cost import cost_terms
from robust_arch.errors import InputError
from robust_arch.search import Budget, robust_scaling, shrink_last, standard
from robust_arch.search.candidates import spec_at

STEPS = (8, 4, 2, 1)
"""Width steps that are tried in turn, until enough architectures are inside."""
_ENOUGH = 200
_DRAWN = 8_000  # combinations of depths and ratios of widths
_MOST = 4_000  # candidates
_SLACK = 0.25  # doublings by which ratios of widths may leave those seen
_HALVINGS = 40
_MOST_CHANNELS = 8192
_RULE_STEPS = (16, 8, 4, 2, 1)
_MOST_BLOCKS = 20


@dataclass(frozen=True)
class Inside:
    """Candidates inside the budget.

    Attributes:
        points: (M, 2 * stages) depths, then widths, without duplicates; recorded architectures are among them.
        step: widths are multiples of it, except those of recorded architectures.
    """

    points: np.ndarray
    step: int


def candidates_inside(observations: Observations, budget: Budget, step: int | None = None, seed: int = 0) -> Inside:
    """Depths between the smallest and largest seen, ratios of widths as seen, and the widths that meet the budget.

    Combinations are drawn at random, the widest width that does not exceed the first resource of the budget is found by
    bisection, and widths one step around it are kept if they are inside.

    Args:
        observations: the architectures seen.
        budget: of parameters, MACs or both.
        step: of the widths; None for the largest of 8, 4, 2, 1 that leaves at least 200 candidates.
        seed: of the draws.

    Raises:
        InputError: if nothing is inside.
    """
    found = np.empty((0, 2 * len(observations.specs[0].depths)), dtype=np.int64)
    nearest: tuple[float, np.ndarray] = (np.inf, found)
    used = STEPS[0] if step is None else step
    for used in STEPS if step is None else (step,):
        points = _drawn(observations, budget, used, np.random.default_rng(seed))
        found, miss = _inside(observations, budget, points)
        if miss.min() < nearest[0]:
            nearest = (float(miss.min()), points[miss.argmin()])
        if len(found) >= _ENOUGH:
            break
    trained, _ = _inside(observations, budget, observations.points)
    if not len(found) + len(trained):
        spec = spec_at(observations.specs[0], nearest[1])
        raise InputError(
            f"budget = {budget}: no architecture with depths as in the studies meets it in steps of "
            f"{counted(used, 'channel')}; nearest: depths {spec.depths_text}, widths {spec.widths_text}: "
            f"{budget.reason(cost(spec, *observations.task))}"
        )
    found = np.unique(found, axis=0)
    if len(found) > _MOST:
        found = found[np.sort(np.random.default_rng(seed).choice(len(found), _MOST, replace=False))]
    return Inside(np.unique(np.concatenate([trained, found]), axis=0), used)


def _drawn(observations: Observations, budget: Budget, step: int, generator: np.random.Generator) -> np.ndarray:
    """(M, 2 * stages) depths and widths near the budget."""
    seen = observations.points
    stages = seen.shape[1] // 2
    depths, widths = np.log2(seen[:, :stages]), np.log2(seen[:, stages:])
    ratios = widths - widths[:, :1]
    drawn = 2 ** generator.uniform(depths.min(axis=0), depths.max(axis=0), (_DRAWN, stages))
    own = np.rint(drawn).astype(np.int64)
    shape = 2 ** generator.uniform(ratios.min(axis=0) - _SLACK, ratios.max(axis=0) + _SLACK, (_DRAWN, stages))
    resource = budget.resources[0]

    def scaled(factor: np.ndarray) -> np.ndarray:
        return step * np.maximum(np.rint(factor[:, None] * shape / step).astype(np.int64), 1)

    low, high = np.zeros(_DRAWN), np.full(_DRAWN, np.log2(_MOST_CHANNELS))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        terms = cost_terms(observations.specs[0], list(own.T), list(scaled(2**middle).T), *observations.task)
        over = getattr(terms, resource) > getattr(budget, resource)
        low, high = np.where(over, low, middle), np.where(over, middle, high)
    around = np.array(list(product((-1, 0, 1), repeat=stages))) * step
    near = scaled(2**low)[:, None, :] + around[None, :, :]
    points = np.concatenate([np.broadcast_to(own[:, None, :], near.shape), near], axis=2).reshape(-1, 2 * stages)
    return np.unique(points[(points > 0).all(axis=1)], axis=0)


def _inside(observations: Observations, budget: Budget, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points inside, and by how much of the budget each misses it."""
    stages = points.shape[1] // 2
    columns = points.T.astype(np.int64)
    terms = cost_terms(observations.specs[0], list(columns[:stages]), list(columns[stages:]), *observations.task)
    misses = [np.abs(getattr(terms, each) / getattr(budget, each) - 1) for each in budget.resources]
    return points[budget.contains(terms.params, terms.macs)], np.max(misses, axis=0)


def rules_inside(observations: Observations, budget: Budget) -> tuple[dict[str, ArchSpec], dict[str, str]]:
    """The networks of published rules inside the budget by name, and why others have none.

    A rule with a free number of blocks per stage takes the number nearest to the median depth seen that has a network
    inside, in the largest steps of 16, 8, 4, 2 and 1 channels.
    """
    template = observations.specs[0]
    classes, shape = observations.task
    usual = max(1, round(float(np.median([spec.depths for spec in observations.specs]))))
    task: dict[str, Any] = {"template": template, "num_classes": classes, "image_shape": shape}
    rules: Mapping[str, Callable[[], ArchSpec]] = {
        "WRN": partial(_with_blocks, standard, budget, usual, task),
        "Huang 2021": partial(_with_blocks, shrink_last, budget, usual, task),
        "RobustScaling": partial(robust_scaling, budget, **task),
    }
    found, missing = {}, {}
    for name, rule in rules.items():
        try:
            found[name] = rule()
        except InputError as error:
            missing[name] = str(error)
    return found, missing


def _with_blocks(rule: Callable[..., ArchSpec], budget: Budget, usual: int, task: Mapping[str, Any]) -> ArchSpec:
    for blocks in sorted(range(1, _MOST_BLOCKS + 1), key=lambda each: abs(np.log(each / usual))):
        for step in _RULE_STEPS:
            with suppress(InputError):
                return rule(budget, blocks, step, **task)
    return rule(budget, usual, _RULE_STEPS[-1], **task)  # its error names the nearest network
