"""The objective's label in records: its name, with its beta unless that is the usual one."""

import re
from collections.abc import Mapping

USUAL_BETA = 6.0
"""Beta of TRADES (Zhang et al. 2019) and, in the code of Huang et al. 2021, of MART."""

_LABEL = re.compile(r"(?P<name>.+)-beta(?P<beta>[0-9][0-9.e+-]*)")


def with_beta(name: str, beta: float | Mapping[float, float]) -> str:
    """The label, like `trades`, `trades-beta9` or, for a mapping by widening factor, `trades-beta1:6,10:12`."""
    if isinstance(beta, Mapping):
        return f"{name}-beta{','.join(f'{factor:g}:{value:g}' for factor, value in beta.items())}"
    return name if beta == USUAL_BETA else f"{name}-beta{beta:g}"


def name_and_beta(label: str) -> tuple[str, float]:
    """The inverse of `with_beta` for numbers; any other label is a name with the usual beta."""
    found = _LABEL.fullmatch(label)
    return (found["name"], float(found["beta"])) if found else (label, USUAL_BETA)
