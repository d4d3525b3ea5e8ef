"""Budgets, spaces and the plan of a study."""

from robust_arch.search.allocation import allocate
from robust_arch.search.budget import Budget
from robust_arch.search.rungs import Halving
from robust_arch.search.space import Members, Rejected, Space

__all__ = ["Budget", "Halving", "Members", "Rejected", "Space", "allocate"]
