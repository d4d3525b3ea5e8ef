"""Folders of the package: its configuration and its cache."""

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def conf_dir() -> Path:
    """The folder of Hydra groups: inside the package in a wheel, beside it in a source tree."""
    packaged = _PACKAGE / "conf"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "conf"


def cache_dir() -> Path:
    """Where decoded data sets and compiled code are kept: $XDG_CACHE_HOME/robust_arch, by default in ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "robust_arch"
