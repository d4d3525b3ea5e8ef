"""What the laws predict for networks of a size that is not in the fit, beside what such networks reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robust_arch.analysis.bounded import Bounded
from robust_arch.analysis.claims.measured import above
from robust_arch.analysis.scaling.estimates import Scaling, ScalingLaw, bounded
from robust_arch.analysis.scaling.laws import parameters
from robust_arch.analysis.scaling.points import Points
from robust_arch.errors import InputError


@dataclass(frozen=True)
class Forecast:
    """The robust error that one form predicts at a size, as a fraction.

    Attributes:
        law: with the interval of the law.
        network: with that of the mean of one architecture's runs, which is as far off the law as those in the fit.
    """

    law: Bounded
    network: Bounded


@dataclass(frozen=True)
class Prediction:
    """What a set of laws predicts at one size.

    Attributes:
        size: the size.
        forecasts: form to its forecast, for the most training images seen.
        observed: robust errors of recorded runs of that size that are not in the fit.
    """

    size: float
    forecasts: Mapping[str, Forecast]
    observed: Sequence[float]


def predict(found: Scaling, size: float, recorded: Points | None = None, seed: int = 0) -> Prediction:
    """The predictions of every form at a size.

    Args:
        found: the laws.
        size: parameters or multiply-accumulates, as the laws have.
        recorded: comparable runs of any size, among them those of the fit.
        seed: of the draws.

    Raises:
        InputError: for runs of one size.
    """
    if not found.points.varies[0]:
        raise InputError(f"--at = {size:g}: expected runs that differ in {found.points.resource}")
    observed = [] if recorded is None else [
        float(error)
        for run, own, error in zip(recorded.runs, recorded.size, recorded.error, strict=True)
        if run not in found.points.runs and not (above(own, np.array(size)) or above(np.array(size), own))
    ]  # fmt: skip
    return Prediction(
        size, {form: _forecast(law, found.points, size, seed) for form, law in found.laws.items()}, observed
    )


def _forecast(found: ScalingLaw, points: Points, size: float, seed: int) -> Forecast:
    generator = np.random.default_rng(seed)
    at = np.array([size]), np.array([points.images.max()])
    value = float(found.law.error(*at)[0])
    drawn = np.array([float(law.error(*at)[0]) for law in found.draws])
    missed = np.log(points.error) - found.law.log_error(points.size, points.images)
    means = np.bincount(points.member, missed) / np.bincount(points.member)
    # residuals of a fit are smaller than the errors; few of them tell little about their scale, as in Student's t
    freedom = max(len(means) - parameters(found.law.form, points.varies), 1)
    off = generator.choice(means, len(drawn)) * np.sqrt(len(means) / generator.chisquare(freedom, len(drawn)))
    return Forecast(bounded(value, drawn), bounded(value, np.minimum(drawn * np.exp(off), 1)))
