"""What an exported file says of itself: one JSON object under one metadata key, the same in every format."""

import json
import logging
from collections.abc import Mapping
from typing import Any

from robust_arch.errors import InputError

log = logging.getLogger(__name__)

METADATA_KEY = "robust_arch"


def to_json(card: Mapping[str, Any]) -> str:
    """The card as one line of JSON; an entry that JSON has no form for is left out, with a warning."""
    plain = {str(key): value for key, value in card.items() if _is_json(value)}
    if left_out := sorted({str(key) for key in card} - set(plain)):
        log.warning("not plain data, so left out of the exported file: %s", ", ".join(left_out))
    return json.dumps(plain, sort_keys=True, allow_nan=False)


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def from_json(metadata: Mapping[str, str], path: str) -> dict[str, Any]:
    """The card in a file's metadata.

    Raises:
        InputError: for a file that this project did not export.
    """
    try:
        card = json.loads(metadata[METADATA_KEY])
    except (KeyError, ValueError, RecursionError):
        card = None
    if not isinstance(card, dict):
        raise InputError(
            f"checkpoint = {path!r}: a file exported by this project; its metadata has no {METADATA_KEY} that says "
            "which architecture it holds"
        )
    return card
