"""Whether plain data is of the type that an annotation names."""

from collections.abc import Callable, Mapping, Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin

from robust_arch.common.plain import is_plain


def is_plain_of(value: object, kind: Any) -> bool:
    """Whether it is a plain value of exactly this type; an integer is also a float."""
    return is_plain(value) and (type(value) is kind or (kind is float and type(value) is int))


def fits(value: object, annotation: Any, fits_one: Callable[[object, Any], bool] = is_plain_of) -> bool:
    """Whether plain data fits an annotation, which may nest unions, mappings and sequences.

    fits_one: judges a value whose annotation is none of these.
    """
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return any(fits(value, part, fits_one) for part in parts)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        key, item = parts or (Any, Any)
        return isinstance(value, Mapping) and all(
            fits(name, key, fits_one) and fits(each, item, fits_one) for name, each in value.items()
        )
    if isinstance(origin, type) and issubclass(origin, Sequence):
        kinds = [part for part in parts or (Any,) if part is not ...]
        return isinstance(value, list | tuple) and all(
            any(fits(each, kind, fits_one) for kind in kinds) for each in value
        )
    return fits_one(value, annotation)
