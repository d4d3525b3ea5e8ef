"""Checkpoints in and out: this project's own, and published ones."""

from robust_arch.interop.checkpoint import LoadedCheckpoint, load_checkpoint
from robust_arch.interop.export import export_checkpoint
from robust_arch.interop.importing import import_published, read_architecture, read_numbers
from robust_arch.interop.opening import open_checkpoint
from robust_arch.interop.published import load_published
from robust_arch.interop.robustbench import export_robustbench

__all__ = [
    "LoadedCheckpoint",
    "export_checkpoint",
    "export_robustbench",
    "import_published",
    "load_checkpoint",
    "load_published",
    "open_checkpoint",
    "read_architecture",
    "read_numbers",
]
