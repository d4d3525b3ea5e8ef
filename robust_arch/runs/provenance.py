"""Which commit, versions and hardware computed a number."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch


def _commit() -> str | None:
    """The commit of the source tree, with `-dirty` if files differ; None outside a git checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        head = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        status = subprocess.run(
            # without a lock on the index, which would stay behind if this process were killed
            ["git", "--no-optional-locks", "-C", root, "status", "--porcelain", "-uno"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("-dirty" if status.stdout.strip() else "")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that affect numbers."""
    packages = ("torch", "torchvision", "pytorch-lightning", "numpy", "pyautoattack")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def hardware() -> dict[str, Any]:
    """Processor, cores, GPUs, threads in use and system, as plain data."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
    }


def provenance() -> dict[str, Any]:
    """Commit, versions and hardware, as plain data."""
    return {
        "commit": _commit(),
        "torch_version": torch.__version__,
        "versions": versions(),
        "hardware": hardware(),
    }
