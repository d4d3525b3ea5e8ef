"""C2: reducing the capacity of the last stage can improve adversarial robustness."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from robust_arch.analysis.claims.differences import Contrast, Largest, Pairs
from robust_arch.analysis.claims.finding import Finding
from robust_arch.analysis.claims.measured import Measured, above
from robust_arch.analysis.claims.question import NAMES, ONE_SEED, Answer, Question, counted, judged


def last_stage_alone(found: Measured) -> Iterator[Finding]:
    """C2 with the other stages kept: pairs in which only the last stage differs, narrower, shallower or both."""
    kept = np.array([(*spec.depths[:-1], *spec.widths[:-1]) for spec in found.specs])
    number = np.unique(kept, axis=0, return_inverse=True)[1].ravel()
    last = np.array([(spec.depths[-1], spec.widths[-1]) for spec in found.specs])
    smaller = (last[:, None] <= last[None, :]).all(axis=2) & (last[:, None] < last[None, :]).any(axis=2)
    what = "Reducing the last stage's width or depth, with the other stages kept, improves robust accuracy"
    yield from _findings(found, "smaller last stage, others kept", what, (number[:, None] == number) & smaller)


def last_stage_refilled(found: Measured, resource: str) -> Iterator[Finding]:
    """C2 at equal cost: the last stage takes less of `resource`, another takes more, and none takes less."""
    *others, last = found.stages[resource].T
    smaller = above(last[None, :], last[:, None]) & found.equal(resource)
    grown = np.zeros_like(smaller)
    for stage in others:
        smaller &= ~above(stage[None, :], stage[:, None])
        grown |= above(stage[:, None], stage[None, :])
    name = NAMES[resource]
    what = f"At equal {name}, moving capacity from the last stage to the others improves robust accuracy"
    yield from _findings(found, f"smaller last stage, others grown, equal {name}", what, smaller & grown)


def _findings(found: Measured, setting: str, statement: str, smaller: np.ndarray) -> Iterator[Finding]:
    """On average and for one pair. smaller: (A, A), the row's architecture is the one with the smaller last stage."""
    pairs = Pairs(*np.nonzero(smaller))
    mean = Question(
        "C2",
        f"{setting}, on average",
        f"{statement}, on average over such pairs.",
        "smaller minus larger, mean of pairs",
    )
    single = Question(
        "C2", f"{setting}, one pair", f"{statement}, for some pair.", "smaller minus larger, the largest of all pairs"
    )
    for question, answer in ((mean, _mean), (single, _single)):
        if len(pairs):
            yield question.finding(found, pairs.members, answer(found, pairs))
        else:
            yield question.nothing(found, "No two architectures of this study differ so; study=last_stage plans some.")


def _mean(found: Measured, pairs: Pairs) -> Answer:
    values = found.layout.values
    if found.layout.sigma is None:
        return Answer("too few runs", ONE_SEED, float(np.mean(values[pairs.first] - values[pairs.second])))
    contrast = Contrast(found, pairs)
    mean, over = contrast.difference(), counted(len(pairs), "pair")
    texts = (f"It helps on average over {over}.", f"on average over {over}")
    return judged(mean, mean.high, contrast.seeds_for, texts)


def _single(found: Measured, pairs: Pairs) -> Answer:
    if found.layout.sigma is None:
        return Answer("too few runs", ONE_SEED)
    largest, over = Largest(found, pairs), counted(len(pairs), "pair")
    smaller, larger = largest.names()
    texts = (f"Of {over}, from {larger} to {smaller} it helps.", f"for one of {over}")
    return judged(largest.difference(), largest.bound(), largest.seeds_for, texts)
