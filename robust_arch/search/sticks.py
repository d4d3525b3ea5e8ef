"""Divisions of a budget as independent numbers, so that any optimiser of numbers can suggest one."""

import math
from collections.abc import Sequence
from typing import Any

from robust_arch.errors import invalid


def check_cuts(cuts: Any, stages: int) -> tuple[float, ...]:
    """Cuts as floats; raises InputError unless there is one a stage but the last, all strictly between 0 and 1."""
    is_list = isinstance(cuts, list | tuple) and len(cuts) == stages - 1
    numbers = is_list and all(isinstance(cut, int | float) and not isinstance(cut, bool) for cut in cuts)
    if not numbers or not all(0 < cut < 1 for cut in cuts):
        raise invalid("search.allocation.cuts", cuts, f"{stages - 1} numbers strictly between 0 and 1")
    return tuple(float(cut) for cut in cuts)


def stick_breaking(cuts: Sequence[float]) -> tuple[float, ...]:
    """Shares of S = len(cuts) + 1 stages, uniform on the simplex if the cuts are independent and uniform on (0, 1).

    Stage i takes the part v_i = 1 - (1 - cut_i)^(1 / (S - i)) of what the stages before it left, the last one the rest:
    v_i has the distribution Beta(1, S - i), which makes the shares Dirichlet(1, ..., 1) (Connor and Mosimann 1969;
    Devroye 1986, section XI.4). Every share is monotone in its own cut.
    """
    shares, left = [], 1.0
    for number, cut in enumerate(check_cuts(cuts, len(cuts) + 1), start=1):
        log_rest = math.log1p(-cut) / (len(cuts) + 1 - number)  # of 1 - v, so that a small v keeps its digits
        shares.append(-math.expm1(log_rest) * left)
        left *= math.exp(log_rest)
    return (*shares, left)
