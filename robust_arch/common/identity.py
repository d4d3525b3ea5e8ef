"""Who a run is: a hash of everything that determines its training, and of nothing else."""

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
    """An object as JSON types that tell its settings: class name and every field.

    The class stands without its module, so that moving code does not change who a run is; 1.0 and 1 agree.
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
    return _describe_object(value, defaults)


def _describe_object(value: Any, defaults: bool) -> Any:
    """What is not plain data: a function by its name, anything else by its class and what it holds."""
    if isinstance(value, functools.partial):
        positional = {"args": describe(value.args, defaults=defaults)} if value.args else {}
        return {"class": describe(value.func), **positional, **describe(value.keywords, defaults=defaults)}
    if isinstance(value, type) or inspect.isroutine(value):
        return value.__qualname__
    if dataclasses.is_dataclass(value):
        fields = {
            field.name: getattr(value, field.name)
            for field in dataclasses.fields(value)
            if defaults or getattr(value, field.name) != _default(field)
        }
        return {"class": type(value).__name__, **describe(fields, defaults=defaults)}
    if hasattr(value, "__dict__"):
        return {"class": type(value).__name__, **describe(vars(value), defaults=defaults)}
    return {"class": type(value).__name__, "value": str(value)}


def _default(field: "dataclasses.Field[Any]") -> Any:
    """What the field holds unless said otherwise; MISSING, which equals nothing, if it must be said."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default
