"""The identity of a run: a hash of everything that determines its training, and of nothing else."""

import dataclasses
import functools
import hashlib
import inspect
import json
from collections.abc import Mapping
from fractions import Fraction
from typing import Any


def short_hash(content: Any) -> str:
    """12 hex digits of the SHA-256 of `content` as canonical JSON."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def describe(value: Any, *, defaults: bool = True) -> Any:
    """An object's settings as JSON types: its class name and every field; 1.0 is written as 1.

    The class is named without its module, so that moving code does not change a run's identity.
    defaults: False leaves out fields that hold their default, so that a field added later does not change it either.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, Fraction):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): describe(item, defaults=defaults) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [describe(item, defaults=defaults) for item in value]
    if inspect.isclass(value) or inspect.isroutine(value):
        return value.__qualname__
    return describe(_settings(value, defaults), defaults=defaults)


def _settings(value: Any, defaults: bool) -> dict[str, Any]:
    """The class of an object and what it holds, not yet as JSON types."""
    if isinstance(value, functools.partial):
        positional = {"args": value.args} if value.args else {}
        return {"class": value.func, **positional, **value.keywords}
    name = type(value).__name__
    if dataclasses.is_dataclass(value):
        held = {field.name: (field, getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"class": name, **{key: own for key, (field, own) in held.items() if defaults or own != _default(field)}}
    return {"class": name, **vars(value)} if hasattr(value, "__dict__") else {"class": name, "value": str(value)}


def _default(field: "dataclasses.Field[Any]") -> Any:
    """The field's default; MISSING, which equals no value, if it has none."""
    made = field.default_factory
    return field.default if made is dataclasses.MISSING else made()
