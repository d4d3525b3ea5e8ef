"""Counts in sentences."""


def counted(count: int, noun: str) -> str:
    """The number with thousands separators and its noun, in the plural unless it is one: "1 run", "1,000 runs"."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
