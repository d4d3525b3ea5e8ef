"""Training objectives, each one file here and one YAML file in conf/objective."""

from robust_arch.objectives.base import AdversarialObjective, Loss, Objective

__all__ = ["AdversarialObjective", "Loss", "Objective"]
