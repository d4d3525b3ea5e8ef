"""Which per-stage widths and depths make an adversarially trained network most robust under a budget?"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("robust-arch")
except PackageNotFoundError:  # a source tree on the path that was never installed
    __version__ = "0+unknown"
