"""Decimal prefixes for counts of parameters and multiply-accumulates."""

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def decimal_prefix(count: float) -> tuple[float, str]:
    """The largest prefix that `count` fills, as its size and its letter; (1, "") below a thousand."""
    return next(((size, letter) for size, letter in _PREFIXES if count >= size), (1.0, ""))
