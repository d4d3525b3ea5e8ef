"""C2: reducing the capacity of the last stage can improve adversarial robustness."""

from __future__ import annotations

import numpy as np

from robust_arch.analysis.claims.differences import Contrast, Largest, Pairs
from robust_arch.analysis.claims.finding import Finding
from robust_arch.analysis.claims.measured import Measured, above
from robust_arch.analysis.claims.question import ALPHA, NAMES, ONE_SEED, SMALLEST, Answer, Question, settled_by

_STATISTIC = "mean difference as the last stage shrinks"


def last_stage_alone(found: Measured) -> Finding:
    """C2 with the other stages kept, over all pairs of architectures that differ in the last stage alone.

    Mean and largest difference are each tested at the one-sided 2.5% level; "supported" is wrong in at most 5% of
    studies in which the last stage has no effect.
    """
    question = Question(
        claim="C2",
        setting="smaller last stage, others kept",
        statement="Reducing the last stage's width or depth, with the other stages kept, improves robust accuracy: on "
        "average over such pairs of architectures, or for one of them.",
        statistic=_STATISTIC,
    )
    kept = np.array([(*spec.depths[:-1], *spec.widths[:-1]) for spec in found.specs])
    number = np.unique(kept, axis=0, return_inverse=True)[1].ravel()
    return _finding(question, found, _pairs((number[:, None] == number) & _smaller_last(found, "params")))


def last_stage_refilled(found: Measured, resource: str) -> Finding:
    """C2 at equal cost: the last stage takes less of `resource`, no other stage takes less; levels as above."""
    name = NAMES[resource]
    question = Question(
        claim="C2",
        setting=f"smaller last stage, others grown, equal {name}",
        statement=f"At equal {name}, moving capacity from the last stage to the others improves robust accuracy: on "
        "average over pairs of architectures, or for one of them.",
        statistic=_STATISTIC,
    )
    chosen = _smaller_last(found, resource)
    chosen &= ~found.dearer(resource) & ~found.dearer(resource).T
    for stage in found.stages[resource][:, :-1].T:
        chosen &= ~above(stage[None, :], stage[:, None])
    return _finding(question, found, _pairs(chosen))


def _smaller_last(found: Measured, resource: str) -> np.ndarray:
    """(A, A): whether the row's architecture has a smaller last stage than the column's."""
    last = found.stages[resource][:, -1]
    return above(last[None, :], last[:, None])


def _pairs(smaller: np.ndarray) -> Pairs:
    return Pairs(*np.nonzero(smaller))


def _finding(question: Question, found: Measured, pairs: Pairs) -> Finding:
    if not len(pairs):
        return question.nothing(found, "No two architectures of this study differ so; study=last_stage plans some.")
    return question.finding(found, pairs.members, _answer(found, pairs))


def _answer(found: Measured, pairs: Pairs) -> Answer:
    value = float(np.mean(found.means[pairs.first] - found.means[pairs.second]))
    if found.sigma is None:
        return Answer("too few runs", f"Too few: {ONE_SEED}.", value)
    contrast, single = Contrast(found, pairs), Largest(found, pairs)
    mean, largest = contrast.difference(), single.difference()
    p_value = min(1.0, 2 * min(mean.p_value, largest.p_value))
    smaller, larger = single.names()
    best = f"{larger} to {smaller}, {largest.value:+.1f} [{largest.low:+.1f}, {largest.high:+.1f}] points"
    if p_value <= ALPHA:
        how = f"on average over {len(pairs):,} pairs" if 2 * mean.p_value <= ALPHA else "for one pair, not on average"
        why = f"It helps {how}; the largest gain is from {best}, adjusted for all pairs."
        return Answer("supported", why, mean.value, mean.low, mean.high, p_value)
    if mean.high < SMALLEST:
        why = (
            f"A mean gain of {SMALLEST:g} point over {len(pairs):,} pairs is excluded; the largest, from {best}, is "
            "within the noise."
        )
        return Answer("not supported", why, mean.value, mean.low, mean.high, p_value)
    needed = settled_by(contrast.seeds_for(SMALLEST), f"a mean gain of {SMALLEST:g} point")
    return Answer("too few runs", f"Too few: {needed}.", mean.value, mean.low, mean.high, p_value)
