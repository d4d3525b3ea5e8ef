"""Where the package finds its configuration."""

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def conf_dir() -> Path:
    """The folder of Hydra groups: inside the package in a wheel, beside it in a source tree."""
    packaged = _PACKAGE / "conf"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "conf"


def cache_dir() -> Path:
    """Where decoded data sets are kept between runs: $XDG_CACHE_HOME/robust_arch, by default in ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "robust_arch"
