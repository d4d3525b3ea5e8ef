"""C2: reducing the capacity of the last stage can improve adversarial robustness."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from robust_arch.analysis.claims.differences import Contrast, Pairs
from robust_arch.analysis.claims.measured import RESOURCES, Measured, above
from robust_arch.analysis.claims.question import LARGEST, ONE_SEED, Answer, Finding, Question, judged, judged_largest
from robust_arch.analysis.formatting import counted

_KEPT = "No two architectures of this study differ in this way; study=last_stage plans some that do."
_STUDIES = {
    "params": "study=last_stage",
    "macs": "study=last_stage search.budget.params=null search.budget.macs=null,arch",
}
_GROWN = "No two architectures of equal {name} differ in this way; {study} plans some that do."


def last_stage_alone(found: Measured) -> Iterator[Finding]:
    """C2 with the other stages kept: only the last stage differs; it is narrower, shallower or both."""
    what = "Reducing the last stage's width or depth, with the other stages kept, improves robust accuracy"
    yield from _findings(found, "smaller last stage, others kept", what, pairs_kept(found), _KEPT)


def pairs_kept(found: Measured) -> Pairs:
    """The pairs of `last_stage_alone`, each first with the smaller last stage."""
    kept = np.array([(*spec.depths[:-1], *spec.widths[:-1]) for spec in found.specs])
    number = np.unique(kept, axis=0, return_inverse=True)[1].ravel()
    last = np.array([(spec.depths[-1], spec.widths[-1]) for spec in found.specs])
    smaller = (last[:, None] <= last[None, :]).all(axis=2) & (last[:, None] < last[None, :]).any(axis=2)
    return Pairs(*np.nonzero((number[:, None] == number) & smaller))


def last_stage_refilled(found: Measured, resource: str) -> Iterator[Finding]:
    """C2 at equal cost: the last stage takes less of `resource`, another takes more, and none takes less."""
    name = RESOURCES[resource]
    what = f"At equal {name}, moving capacity from the last stage to the others improves robust accuracy"
    nothing = found.unless_unrecorded(resource, _GROWN.format(name=name, study=_STUDIES[resource]))
    setting = f"smaller last stage, others grown, equal {name}"
    yield from _findings(found, setting, what, pairs_refilled(found, resource), nothing)


def pairs_refilled(found: Measured, resource: str) -> Pairs:
    """The pairs of `last_stage_refilled`, each first with the smaller last stage."""
    *others, last = found.stages[resource].T
    smaller = above(last[None, :], last[:, None]) & found.equal(resource)
    grown = np.zeros_like(smaller)
    for stage in others:
        smaller &= ~above(stage[None, :], stage[:, None])
        grown |= above(stage[:, None], stage[None, :])
    return Pairs(*np.nonzero(smaller & grown))


def _findings(found: Measured, setting: str, statement: str, pairs: Pairs, nothing: str) -> Iterator[Finding]:
    """On average and for one pair."""
    mean = Question(
        "C2",
        f"{setting}, on average",
        f"{statement}, on average over the pairs that were trained.",
        "smaller minus larger, mean of pairs",
    )
    yield mean.finding(found, pairs.members, lambda: _mean(found, pairs), nothing)
    single = Question("C2", f"{setting}, one pair", f"{statement}, for some pair.", f"smaller minus larger, {LARGEST}")
    supported = "Of {count}, from {second} to {first} it helps."
    yield single.finding(found, pairs.members, lambda: judged_largest(found, pairs, supported), nothing)


def _mean(found: Measured, pairs: Pairs) -> Answer:
    values = found.model.values
    if found.model.sigma is None:
        return Answer("too few runs", ONE_SEED, float(np.mean(values[pairs.first] - values[pairs.second])))
    over = counted(len(pairs), "pair")
    return judged(Contrast(found, pairs), f"It helps on average over {over}.", f"on average over {over}")
