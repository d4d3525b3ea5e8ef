"""Numbers as text: counts, accuracies and costs, with a dash for a number that was not computed."""

import textwrap
from collections.abc import Iterable
from typing import Any

import pandas as pd

ABSENT = "-"
COLUMNS = 80
"""Characters of a line in a terminal."""
_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def counted(count: int, noun: str) -> str:
    """The number with thousands separators and its noun, in the plural unless it is one: "1 run", "1,000 runs"."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def checkpoint_text(checkpoint: Any, weights: Any) -> str:
    """A checkpoint with its weights, unless these are raw: "best", "best (ema weights)"."""
    return f"{checkpoint}" if weights == "raw" else f"{checkpoint} ({weights} weights)"


def number(value: Any, digits: int) -> str:
    """With thousands separators and `digits` decimals."""
    return ABSENT if pd.isna(value) else f"{float(value):,.{digits}f}"


def accuracy(value: float, n: float) -> str:
    """An accuracy in percent, with the decimals that `n` images can fill."""
    return number(value, 1 if n < 1000 else 2)


def operations(macs: Any) -> str:
    """Multiply-accumulates with two decimals and a decimal prefix: 19.13 G."""
    if pd.isna(macs):
        return ABSENT
    scale, prefix = decimal_prefix(macs)
    return f"{macs / scale:.2f} {prefix}" if prefix else f"{macs:.0f}"


def decimal_prefix(count: float) -> tuple[float, str]:
    """The largest prefix that `count` fills, as its size and its letter; (1, "") below a thousand."""
    return next(((size, letter) for size, letter in _PREFIXES if count >= size), (1.0, ""))


def in_columns(lines: Iterable[str], indent: int = 2) -> str:
    """The lines as one text; those of more than 80 characters are wrapped, their rest indented."""
    wrap = textwrap.TextWrapper(COLUMNS, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join(wrap.fill(line) if len(line) > COLUMNS else line for line in lines)
