"""Robust error as a function of the network's size and the training images seen."""

from robust_arch.analysis.scaling.estimates import Scaling, ScalingLaw, fit_scaling
from robust_arch.analysis.scaling.laws import FORMS, Law, fit_law
from robust_arch.analysis.scaling.points import Points, points_of
from robust_arch.analysis.scaling.prediction import Forecast, Prediction, predict

__all__ = [
    "FORMS", "Forecast", "Law", "Points", "Prediction", "Scaling", "ScalingLaw", "fit_law", "fit_scaling", "points_of",
    "predict",
]  # fmt: skip
