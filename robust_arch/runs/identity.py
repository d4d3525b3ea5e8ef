"""Who a run is: a hash of everything that determines its training, and of nothing else."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from fractions import Fraction
from typing import Any


def short_hash(content: Any) -> str:
    """12 hex digits of the SHA-256 of `content` as canonical JSON."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def describe(value: Any) -> Any:
    """An object as JSON types that tell its settings: class name and every field, defaults included.

    The class stands without its module, so that moving code does not change who a run is; 1.0 and 1 agree.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, Fraction):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    if isinstance(value, functools.partial):
        return {"class": value.func.__name__, **describe(value.keywords)}
    if dataclasses.is_dataclass(value):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {"class": type(value).__name__, **describe(fields)}
    return {"class": type(value).__name__, **describe(vars(value))}
