"""Attacks on classifiers of images in [0, 1], each inside a stated threat model."""

from robust_arch.attacks.base import Attack
from robust_arch.attacks.gradient import PGD
from robust_arch.attacks.losses import CrossEntropy, GuidedMargin, KLToClean, Margin
from robust_arch.attacks.n_fgsm import NFGSM
from robust_arch.attacks.start import Bernoulli, Clean, Gaussian, Uniform
from robust_arch.attacks.threat import ThreatModel

__all__ = [
    "NFGSM",
    "PGD",
    "Attack",
    "Bernoulli",
    "Clean",
    "CrossEntropy",
    "Gaussian",
    "GuidedMargin",
    "KLToClean",
    "Margin",
    "ThreatModel",
    "Uniform",
]
