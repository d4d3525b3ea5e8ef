"""Checkpoints in and out: this project's own, and published ones."""

from robust_arch.interop.checkpoint import LoadedCheckpoint, load_checkpoint
from robust_arch.interop.published import load_published

__all__ = ["LoadedCheckpoint", "load_checkpoint", "load_published"]
