"""Whether a JSON object is what this package writes: a file that holds something else counts as not there."""

from collections.abc import Mapping
from typing import Any

_RESULT_NUMBERS = ("best_epoch", "last_epoch", "best_val_robust_acc", "train_seconds", "selection_images")
_FACTS = ("run_id", "study", "arch", "family", "depths", "widths", "params", "macs", "data")  # of any run there is
_RECORD_KEYS = frozenset({"checkpoint", "weights", "threat", "data", "n_test", "clean", "attacks"})


def is_status(content: Mapping[str, Any]) -> bool:
    """Of status.json."""
    facts, error = content.get("run"), content.get("error")
    known = isinstance(facts, dict) and all(key in facts for key in _FACTS) and _is_number(facts["macs"])
    return known and (error is None or isinstance(error, str)) and isinstance(content.get("attempts", 0), int)


def is_result(content: Mapping[str, Any]) -> bool:
    """Of result.json."""
    return all(_is_number(content.get(key)) for key in _RESULT_NUMBERS) and isinstance(content.get("finished"), str)


def is_evaluation(content: Mapping[str, Any]) -> bool:
    """Of an evaluation record, whose numbers are there or voided by a check that failed."""
    if not set(content) >= _RECORD_KEYS or not isinstance(content.get("invalid", []), list):
        return False
    attacks = content["attacks"]
    scored = [content["clean"], *(attacks.values() if isinstance(attacks, dict) else [None])]
    return all(isinstance(score, dict) and _is_number(score.get("percent")) for score in scored)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
