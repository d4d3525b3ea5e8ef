"""Training objectives; each is one file and one YAML in conf/objective."""

from robust_arch.objectives.base import Loss, Objective

__all__ = ["Loss", "Objective"]
