"""Budgets, spaces and the plan of a study."""

from robust_arch.search.allocation import allocate
from robust_arch.search.budget import Budget
from robust_arch.search.candidates import Candidates, Rejected, Specs
from robust_arch.search.grid import Tie
from robust_arch.search.halving import Halving
from robust_arch.search.sample import Sample
from robust_arch.search.scaling_rules import Scaling, robust_scaling, shrink_last, standard
from robust_arch.search.space import Space
from robust_arch.search.variants import Variants

__all__ = [
    "Budget",
    "Candidates",
    "Halving",
    "Rejected",
    "Sample",
    "Scaling",
    "Space",
    "Specs",
    "Tie",
    "Variants",
    "allocate",
    "robust_scaling",
    "shrink_last",
    "standard",
]
