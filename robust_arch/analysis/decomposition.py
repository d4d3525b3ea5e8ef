"""Robust error as natural error plus what the attack adds, and its bound by instability.

An example counts in the robust error if it is wrong at x or at x', in the instability if x' has another class than x.
Then, for shares of the same examples under the same x',

    robust error = natural error + P(right at x, wrong at x')
                 = natural error + instability - P(wrong at x, unstable) <= natural error + instability,

since an example is right at x and wrong at x' if and only if it is right at x and unstable. The first line, with the
worst x' of the ball, is the decomposition of Zhang et al. (ICML 2019) into natural and boundary error.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from robust_arch.errors import InputError
from robust_arch.runs.records import SMOOTHNESS_ATTACK

ATTACK_ACC = f"{SMOOTHNESS_ATTACK}_acc"
"""The column of the attack that gives x'; for the worst case over several attacks the bound need not hold."""
_ROUNDING = 1e-3  # of percentages written with six digits; one image of 50,000 is 2e-3


def decomposition(rows: pd.DataFrame) -> pd.DataFrame:
    """Both sides of the bound for rows of results.csv, in percent of n_test, NaN where a part was not computed.

    Returns:
        natural_error, instability, robust_error, fallen (right at x and wrong at x') and counted_twice (wrong at x and
        unstable: how far the bound is above the robust error), with the index of `rows`.

    Raises:
        InputError: for a row whose numbers cannot be of the same examples and the same x'.
    """
    errors = pd.DataFrame(
        {
            "natural_error": 100 - rows["clean_acc"],
            "instability": 100 - rows["stability"],
            "robust_error": 100 - rows[ATTACK_ACC],
        }
    )
    errors["fallen"] = errors["robust_error"] - errors["natural_error"]
    errors["counted_twice"] = errors["instability"] - errors["fallen"]
    # all five are shares, and counted_twice is at most the natural error
    excess = errors["counted_twice"] - errors["natural_error"]
    impossible = np.flatnonzero((errors.min(axis=1) < -_ROUNDING) | (excess > _ROUNDING))
    if len(impossible):
        row = rows.iloc[impossible[0]]
        numbers = {name: float(row[name]) for name in ("clean_acc", ATTACK_ACC, "stability")}
        raise InputError(f"run_id = {row['run_id']!r}: {numbers} cannot be of the same examples under the same attack")
    return errors
