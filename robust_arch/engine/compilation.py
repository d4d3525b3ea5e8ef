"""Whether compiling pays, the compiler of the inner loop's regions, and that of the blocks that training descends."""

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn

from robust_arch.common.paths import cache_dir
from robust_arch.engine.precision import processor_has

MIN_STEPS = 2000
"""Planned training steps below which compiling costs more than it saves: it took 27 s where benchmarks/README.md
measured it, and saved a prototype of this engine 0.14 s per step on 2 cores with AMX (240 images/s to 326, WRN-14-1 in
batches of 128)."""

_RECOMPILATIONS = 64  # shapes of one region that differ in more than what symbols cover


def decide_compile(device: torch.device, steps: int, *, half: bool) -> tuple[bool, str]:
    """Whether to compile the inner loop of a run of `steps` training steps, and why. half: it computes in bfloat16.

    The answer depends on the machine and the number of steps alone, so that the same run decides the same.
    """
    if device.type == "cuda":
        return False, "gains on GPUs are not measured yet; true asks for it"
    if not (half and processor_has("amx_bf16")):
        return False, "it gains where AMX units multiply bfloat16; elsewhere convolutions take nearly all of the time"
    if steps < MIN_STEPS:
        return False, f"{steps} planned steps are fewer than {MIN_STEPS}"
    if missing := missing_compiler(device):
        return False, missing
    return True, f"{steps} planned steps"


def missing_compiler(device: torch.device) -> str:
    """What torch.compile lacks here, or an empty string."""
    if device.type == "cuda":
        return "" if importlib.util.find_spec("triton") else "the package triton is not installed"
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    return "" if shutil.which(compiler) else f"there is no C++ compiler {compiler}"


def _prepare_compiler() -> None:
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_dir() / "inductor"))
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _RECOMPILATIONS)


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """The blocks of a network's stages; none where it has no `stages`, each an `nn.Sequential`."""
    stages = getattr(network, "stages", ())
    return [block for stage in stages if isinstance(stage, nn.Sequential) for block in stage]


def compile_blocks(network: nn.Module) -> None:
    """Compile the blocks in place, forward and backward, for `trainer.compile=step`; weights keep their names.

    A network without stages stays as it is. Passes in evaluation mode are compiled too, at the first of them.
    """
    _prepare_compiler()
    for block in blocks_of(network):
        block.compile(dynamic=True)


class RegionCompiler:
    """Compiles a function of images and constants; what it compiles is kept on disk for later runs.

    On a CPU one result serves every batch size and width. On a GPU each shape is recorded as a CUDA graph.
    """

    def __init__(self, device: torch.device) -> None:
        self.graphs = device.type == "cuda"
        _prepare_compiler()

    def __call__(self, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """The compiled function; compilation happens at its first call."""
        if self.graphs:
            return torch.compile(function, mode="reduce-overhead", dynamic=False)
        return torch.compile(function, dynamic=True)

    def begin_step(self) -> None:
        """Tell CUDA graphs that the results of earlier passes are no longer read."""
        if self.graphs:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
