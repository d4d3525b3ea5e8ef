"""What makes training and attacks fast; each part has a switch, and `trainer=plain` does without all of them."""

from robust_arch.engine.compilation import compile_blocks, decide_compile, missing_compiler
from robust_arch.engine.memory import keep_freed_memory, release_memory
from robust_arch.engine.network import AttackableNetwork
from robust_arch.engine.precision import PRECISIONS, decide_precision

__all__ = [
    "PRECISIONS",
    "AttackableNetwork",
    "compile_blocks",
    "decide_compile",
    "decide_precision",
    "keep_freed_memory",
    "missing_compiler",
    "release_memory",
]
