"""The three claims of Huang et al. (NeurIPS 2021) as statements that are tested on a study's recorded runs."""

from robust_arch.analysis.claims.examine import Examined, examine, examine_all, examine_checkpoints
from robust_arch.analysis.claims.question import Finding
from robust_arch.analysis.claims.sites import Sites, without_site_effects
from robust_arch.analysis.claims.wording import (
    LEGEND,
    answers,
    decided,
    estimate,
    heading,
    left_out,
    not_tested,
    numbers,
    told,
    verdict_table,
)

__all__ = [
    "LEGEND", "Examined", "Finding", "Sites", "answers", "decided", "estimate", "examine", "examine_all",
    "examine_checkpoints", "heading", "left_out", "not_tested", "numbers", "told", "verdict_table",
    "without_site_effects",
]  # fmt: skip
