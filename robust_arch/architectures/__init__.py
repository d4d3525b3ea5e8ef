"""What a network is, what it costs, and how it is built."""

from robust_arch.architectures.build import Classifier, build
from robust_arch.architectures.cost import Cost, activation_bytes, cost
from robust_arch.architectures.custom import AnyArch, CustomArch
from robust_arch.architectures.family import ImageShape
from robust_arch.architectures.presets import PRESETS, arch_name, named_spec
from robust_arch.architectures.spec import ArchSpec, numbers_of, numbers_text

__all__ = [
    "PRESETS",
    "AnyArch",
    "ArchSpec",
    "Classifier",
    "Cost",
    "CustomArch",
    "ImageShape",
    "activation_bytes",
    "arch_name",
    "build",
    "cost",
    "named_spec",
    "numbers_of",
    "numbers_text",
]
