"""An exported file's description of itself: one JSON object under one metadata key, the same in every format."""

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from robust_arch.errors import InputError

log = logging.getLogger(__name__)

METADATA_KEY = "robust_arch"


def to_json(card: Mapping[str, Any]) -> str:
    """The card as one line of JSON; entries that JSON cannot express are left out, with a warning."""
    plain = {}
    for key, value in card.items():
        with suppress(TypeError, ValueError, RecursionError):
            plain[str(key)] = json.loads(json.dumps(value, allow_nan=False))
    if left_out := sorted(set(map(str, card)) - set(plain)):
        log.warning("not plain data, so left out of the exported file: %s", ", ".join(left_out))
    return json.dumps(plain, sort_keys=True)


def from_json(metadata: Mapping[str, str], path: str) -> dict[str, Any]:
    """The card in a file's metadata; raises InputError for a file that this project did not export."""
    with suppress(KeyError, ValueError, RecursionError):
        if isinstance(card := json.loads(metadata[METADATA_KEY]), dict):
            return card
    raise InputError(
        f"checkpoint = {path!r}: expected a file exported by this project; its metadata has no {METADATA_KEY} that "
        "names its architecture"
    )
