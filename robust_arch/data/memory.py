"""Whether a data set fits into this machine's memory."""

import os

from robust_arch.errors import invalid


def require_memory(key: str, value: object, size: int) -> None:
    """Raise InputError, naming `key` and its value, where `size` bytes of images exceed the machine's memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory:
        allowed = f"images that fit into memory: these take {size / 2**30:,.1f} GiB, this machine has "
        raise invalid(key, value, f"{allowed}{memory / 2**30:,.1f} GiB")
