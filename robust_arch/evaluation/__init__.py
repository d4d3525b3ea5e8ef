"""How robust a trained network is: attacks in float32 on each test example once, with intervals."""

from robust_arch.evaluation.record import EvaluationRecord, Subject, select_examples
from robust_arch.evaluation.settings import EvaluationSettings, NamedAttack

__all__ = ["EvaluationRecord", "EvaluationSettings", "NamedAttack", "Subject", "select_examples"]
