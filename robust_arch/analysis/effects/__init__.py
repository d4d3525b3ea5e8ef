"""How depths, widths and costs move robust accuracy, from one regression over all architectures."""

from robust_arch.analysis.effects.design import Design, designs
from robust_arch.analysis.effects.estimates import Effects, Path, estimate_effects

__all__ = ["Design", "Effects", "Path", "designs", "estimate_effects"]
