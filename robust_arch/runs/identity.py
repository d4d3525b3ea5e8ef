"""Who a run is: a hash of everything that determines its training, and of nothing else."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def short_hash(content: Any) -> str:
    """12 hex digits of the SHA-256 of `content` as canonical JSON."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def canonical(config: Any) -> Any:
    """A configuration node without what does not determine numbers.

    `_target_` keeps its class name alone, so that moving code does not change a run's identity; 1.0 and 1 agree.
    """
    if isinstance(config, Mapping):
        kept = {key: canonical(value) for key, value in config.items() if key not in ("_partial_", "_convert_")}
        if isinstance(target := kept.get("_target_"), str):
            kept["_target_"] = target.rsplit(".", 1)[-1]
        return kept
    if isinstance(config, list | tuple):
        return [canonical(item) for item in config]
    if isinstance(config, float) and config.is_integer():
        return int(config)
    return config
