"""How robust a trained network is: attacks in float32 on each test example once, with intervals."""

from robust_arch.evaluation.examples import Examples, select_examples
from robust_arch.evaluation.record import EvaluationRecord, Subject
from robust_arch.evaluation.settings import EvaluationSettings, NamedAttack
from robust_arch.evaluation.suite import extend

__all__ = ["EvaluationRecord", "EvaluationSettings", "Examples", "NamedAttack", "Subject", "extend", "select_examples"]
