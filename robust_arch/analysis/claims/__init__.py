"""The three claims of Huang et al. (NeurIPS 2021) as statements that a study's recorded runs can be asked."""

from robust_arch.analysis.claims.examine import examine
from robust_arch.analysis.claims.finding import VERDICTS, Finding

__all__ = ["VERDICTS", "Finding", "examine"]
