"""Which per-stage widths and depths make an adversarially trained network most robust under a budget?"""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robust_arch.execution.evaluate_model import evaluate_model

__all__ = ["__version__", "evaluate_model"]

try:
    __version__ = version("robust-arch")
except PackageNotFoundError:  # a source tree on the path that was never installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    """`evaluate_model`, imported when it is first used: torch takes seconds."""
    if name == "evaluate_model":
        from robust_arch.execution.evaluate_model import evaluate_model

        return evaluate_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
