"""Scaling laws of recorded runs: constants with intervals, comparison of forms, frontier and held-out prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robust_arch.analysis.bounded import Bounded
from robust_arch.analysis.scaling.laws import FORMS, Law, fit_law, optimum, parameters
from robust_arch.analysis.scaling.points import Points
from robust_arch.errors import InputError

DRAWS = 200
FURTHER = 10.0
"""How far beyond the largest network the forms are compared."""
_FOLDS = 10
_HELD_OUT = 0.2  # of the distinct sizes, the largest
_SPARE = 2  # cells of architecture and images beyond the constants
_FAR = 6.0  # Huber thresholds of a run
_LEVEL = 0.975  # of the t test between forms
_SMALLEST = 0.1  # of the loss: the smallest difference between forms that counts
_WILDEST = 4.0  # Huber thresholds at which a residual is cut before it is drawn again


@dataclass(frozen=True)
class Optimum:
    """The best use of a budget: size and images with the least error at size x images = compute."""

    compute: float
    size: Bounded
    images: Bounded
    error: Bounded


@dataclass(frozen=True)
class ScalingLaw:
    """One form, fitted.

    Attributes:
        law: fitted to all runs.
        constants: E, a, b with intervals, as far as the form has them.
        further: predicted error at ten times the largest size and the most images that a run of that size saw; where
            sizes do not vary, at ten times the images.
        draws: laws of the resamples.
        cross_error: root mean square of the log error's prediction for left-out architectures.
        held_out: the same for the largest sizes, predicted by a fit without them; None where too few are left.
        without_largest: that fit.
    """

    law: Law
    constants: Mapping[str, Bounded]
    further: Bounded
    draws: Sequence[Law]
    cross_error: float
    held_out: float | None
    without_largest: Law | None


@dataclass(frozen=True)
class Scaling:
    """The laws of one set of runs.

    Attributes:
        points: the runs.
        laws: form to its fit.
        best: the form with the smallest cross-validated loss.
        alike: forms that cross-validation cannot tell from the best.
        plateau_shown: whether a plateau above 0 is shown: the form without one predicts worse.
        held_out: (R,) whether a run is of one of the largest sizes.
        frontier: best uses of budgets under the form `plateau`; none where sizes or images do not vary.
        outliers: runs far from the best law, with their error and the predicted one.
        draws: number of resamples.
        rises: whether the error rises with the size, by a test of Kendall's tau over architectures that saw as many
            images: no form can express that.
    """

    points: Points
    laws: Mapping[str, ScalingLaw]
    best: str
    alike: Sequence[str]
    plateau_shown: bool
    held_out: np.ndarray
    frontier: Sequence[Optimum]
    outliers: Sequence[tuple[str, float, float]]
    draws: int
    rises: bool


def fit_scaling(points: Points, draws: int = DRAWS, seed: int = 0) -> Scaling:
    """Fit every form, resample residuals of whole architectures, and compare the forms.

    Raises:
        InputError: for too few different sizes and images seen.
    """
    _require_enough(points)
    fitted = {form: fit_law(form, points.size, points.images, points.error) for form in FORMS}
    folds = _folds(points, seed)
    losses = {form: _left_out(form, law, points, folds) for form, law in fitted.items()}
    best, alike = _compared(losses, points)
    held_out = _largest(points)
    laws = {form: _law(law, points, losses[form], held_out, draws, seed) for form, law in fitted.items()}
    plateau = laws["plateau"]
    return Scaling(
        points=points,
        laws=laws,
        best=best,
        alike=alike,
        plateau_shown=best != "power" and "power" not in alike,
        held_out=held_out,
        frontier=list(_frontier(plateau, points)) if all(points.varies) else [],
        outliers=_outliers(fitted[best], points),
        draws=draws,
        rises=_rises(points),
    )


def _rises(points: Points) -> bool:
    from scipy.stats import kendalltau

    if points.varies != (True, False):
        return False
    runs = np.bincount(points.member)
    size, error = (np.bincount(points.member, each) / runs for each in (points.size, points.error))
    return bool(kendalltau(size, error, alternative="greater").pvalue <= 1 - _LEVEL)


def _require_enough(points: Points) -> None:
    cells = len(np.unique(np.column_stack([points.size, points.images]), axis=0))
    if not any(points.varies):
        raise InputError("scaling: every run has the same size and saw as many images: expected some that differ")
    needed = parameters("plateau", points.varies) + _SPARE
    for varies, values, what in zip(points.varies, (points.size, points.images), ("sizes", "images seen"), strict=True):
        if varies and len(np.unique(values)) < 3:
            raise InputError(f"scaling: {len(np.unique(values))} different {what}: expected one, or at least 3")
    if cells < needed:
        raise InputError(f"scaling: {cells} different pairs of size and images seen: expected at least {needed}")


def _folds(points: Points, seed: int) -> np.ndarray:
    """(R,) fold of each run; runs of one architecture share one, unless images seen alone vary."""
    unit = points.member if points.varies[0] else np.unique(points.images, return_inverse=True)[1].ravel()
    order = np.random.default_rng(seed).permutation(unit.max() + 1)
    return np.asarray(order[unit] % min(_FOLDS, unit.max() + 1))


def _left_out(form: str, law: Law, points: Points, folds: np.ndarray) -> np.ndarray:
    """(R,) errors of the predicted log error, by fits without the run's fold."""
    found = np.empty(len(folds))
    for fold in np.unique(folds):
        kept = points.part(folds != fold)
        near = law if kept.varies == points.varies else None
        own = fit_law(form, kept.size, kept.images, kept.error, near=near)
        out = folds == fold
        found[out] = own.log_error(points.size[out], points.images[out]) - np.log(points.error[out])
    return found


def _compared(losses: Mapping[str, np.ndarray], points: Points) -> tuple[str, list[str]]:
    """The best form, and those whose loss is not above its by 10%, or not by a t test over architectures."""
    from scipy.special import stdtrit

    cut = 3 * float(np.median([np.median(np.abs(each)) for each in losses.values()])) * 1.4826
    squares = {form: np.minimum(np.abs(each), cut) ** 2 for form, each in losses.items()}
    unit = points.member if points.varies[0] else np.unique(points.images, return_inverse=True)[1].ravel()
    best = min(squares, key=lambda form: float(np.mean(squares[form])))
    alike = []
    for form, each in squares.items():
        if form == best:
            continue
        sums = np.bincount(unit, each - squares[best])
        error = float(np.std(sums, ddof=1)) * np.sqrt(len(sums)) if len(sums) > 1 else np.inf
        clear = float(sums.sum()) > float(stdtrit(len(sums) - 1, _LEVEL)) * error
        if not clear or sums.sum() < _SMALLEST * squares[best].sum():
            alike.append(form)
    return best, alike


def _largest(points: Points) -> np.ndarray:
    """(R,) whether the size is among the largest fifth, or the images seen where sizes do not vary."""
    values = points.size if points.varies[0] else points.images
    distinct = np.unique(values)
    count = max(1, round(_HELD_OUT * len(distinct)))
    return np.asarray(values >= distinct[-count])


def _law(law: Law, points: Points, left_out: np.ndarray, held_out: np.ndarray, draws: int, seed: int) -> ScalingLaw:
    resampled = _resampled(law, points, draws, seed)
    inside = points.part(~held_out)
    predicted, rest = None, None
    enough = len(np.unique(np.column_stack([inside.size, inside.images]), axis=0)) > parameters(law.form, inside.varies)
    if inside.varies == points.varies and enough:
        rest = fit_law(law.form, inside.size, inside.images, inside.error)
        missed = rest.log_error(points.size[held_out], points.images[held_out]) - np.log(points.error[held_out])
        predicted = float(np.sqrt(np.mean(missed**2)))
    size = np.array([FURTHER * points.size.max()]) if points.varies[0] else np.array([points.size.max()])
    images = points.images[points.size == points.size.max()].max(keepdims=True)
    if not points.varies[0]:
        images = FURTHER * images
    constants = {
        name: bounded(value, [draw.constants[name] for draw in resampled]) for name, value in law.constants.items()
    }
    further = bounded(float(law.error(size, images)[0]), [float(draw.error(size, images)[0]) for draw in resampled])
    return ScalingLaw(law, constants, further, resampled, float(np.sqrt(np.mean(left_out**2))), predicted, rest)


def _resampled(law: Law, points: Points, draws: int, seed: int) -> list[Law]:
    """Laws of data that are the fitted law plus residuals that are drawn again.

    Sizes and images stay as they were planned. An architecture gets the mean residual of a random one, and its runs
    random residuals about it, so that runs of one architecture stay together. The scale of the means is drawn too
    (from chi-squared, as in Student's t), since few architectures tell little about it.
    """
    generator = np.random.default_rng(seed)
    fitted = law.log_error(points.size, points.images)
    cut = _WILDEST * law.delta
    residuals = np.clip(np.log(points.error) - fitted, -cut, cut)
    unit = points.member if points.varies[0] else np.arange(len(residuals))
    count, runs = int(unit.max()) + 1, np.bincount(unit)
    means = np.bincount(unit, residuals) / runs
    within = residuals - means[unit]
    repeated = runs[unit] > 1
    single = not repeated.any()
    freedom = max(count - (parameters(law.form, points.varies) if single else 2), 1)
    spare = np.sqrt(len(unit) / max(len(unit) - parameters(law.form, points.varies), 1))
    found = []
    for _ in range(draws):
        scale = np.sqrt(count / generator.chisquare(freedom))
        drawn = generator.choice(means, count)[unit] * scale
        if not single:
            own = np.where(repeated, generator.choice(within[repeated], len(within)), 0.0)
            own -= (np.bincount(unit, own) / runs)[unit]
            drawn = drawn + own * np.sqrt(runs / np.maximum(runs - 1, 1))[unit] * spare
        found.append(fit_law(law.form, points.size, points.images, np.exp(np.minimum(fitted + drawn, 0.0)), near=law))
    return found


def bounded(value: float, drawn: Sequence[float] | np.ndarray) -> Bounded:
    """A value with the percentiles of its draws."""
    low, high = np.quantile(np.array(drawn), [0.025, 0.975])
    return Bounded(value, min(value, float(low)), max(value, float(high)))


def _frontier(found: ScalingLaw, points: Points) -> list[Optimum]:
    """At the smallest, the middle and the largest compute of the runs."""
    compute = points.size * points.images
    budgets = np.geomspace(compute.min(), compute.max(), 3)
    optima = []
    for budget in map(float, budgets):
        best = optimum(found.law, budget)
        drawn = [each for law in found.draws if (each := optimum(law, budget)) is not None]
        if best is None or len(drawn) < 0.9 * len(found.draws):
            return []
        errors = [
            float(law.error(np.array(own[0]), np.array(own[1])))
            for law in found.draws
            if (own := optimum(law, budget)) is not None
        ]
        own_error = float(found.law.error(np.array(best[0]), np.array(best[1])))
        sizes, images = ([each[place] for each in drawn] for place in (0, 1))
        optima.append(Optimum(budget, bounded(best[0], sizes), bounded(best[1], images), bounded(own_error, errors)))
    return optima


def _outliers(law: Law, points: Points) -> list[tuple[str, float, float]]:
    predicted = law.error(points.size, points.images)
    far = np.flatnonzero(np.abs(np.log(points.error / predicted)) > _FAR * law.delta)
    return [(f"{points.names[points.member[each]]}, run {points.runs[each]}", float(points.error[each]),
             float(predicted[each])) for each in far]  # fmt: skip
