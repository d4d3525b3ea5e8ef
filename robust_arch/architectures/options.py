"""Settings that only one family has, the keys of `arch.options`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

from robust_arch.errors import invalid, require_keys


@dataclass(frozen=True)
class Options:
    """The options of a family; this one has none.

    A family with options has a frozen dataclass of its own, in which every field has a default. Where a value equals
    its default it is not part of an architecture's identity, so that an option added later changes no run id.
    """

    @classmethod
    def read(cls, given: Any) -> Self:
        """The options from a mapping or from pairs; an unknown key raises InputError."""
        try:
            values = dict(given or {})
        except (TypeError, ValueError):
            raise invalid("arch.options", given, "a mapping of options to values") from None
        for key, value in values.items():
            items = value if isinstance(value, list | tuple) else [value]
            if not all(item is None or isinstance(item, bool | int | float | str) for item in items):
                raise invalid(f"arch.options.{key}", value, "text, a number, true, false, null, or a list of these")
        known = [field.name for field in fields(cls)]
        if values and not known:
            raise invalid("arch.options", values, "nothing, as the family has no options")
        require_keys(values, "arch.options", known)
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})

    def for_stages(self, stages: int) -> Self:  # noqa: ARG002
        """The same options of a network of so many stages, each written in one way only; by default themselves."""
        return self

    def changed(self) -> tuple[tuple[str, Any], ...]:
        """Name and value of each option that differs from its default, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return tuple(sorted((f.name, values[f.name]) for f in fields(self) if values[f.name] != f.default))


def require_choice(key: str, value: Any, allowed: Iterable[str]) -> None:
    """Raise InputError unless the value is one of the names."""
    names = tuple(allowed)
    if value not in names:
        raise invalid(f"arch.options.{key}", value, f"one of {', '.join(names)}")


def require_number(key: str, value: Any, least: float, below: float) -> None:
    """Raise InputError unless the value is a number in [least, below)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < below:
        raise invalid(f"arch.options.{key}", value, f"a number of at least {least:g} and below {below:g}")


def as_short_as_possible(key: str, value: Any, stages: int) -> Any:
    """One value where all stages have the same, else one per stage; another number of them raises InputError."""
    values = per_stage(key, value, stages)
    return values[0] if len(set(values)) == 1 else values


def per_stage(key: str, value: Any, stages: int) -> tuple[Any, ...]:
    """One value for all stages, or one per stage, as one per stage; another number of them raises InputError."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return (value,) * stages
    if len(value) != stages:
        raise invalid(f"arch.options.{key}", list(value), f"one value, or a list of {stages}, one per stage")
    return tuple(value)


def option_text(value: Any) -> str:
    """An option's value as a part of an architecture's name; `option_value` is the inverse."""
    if isinstance(value, tuple):
        return "+".join(map(option_text, value)) + ("+" if len(value) == 1 else "")
    return str(value).lower() if isinstance(value, bool) else str(value)


def option_value(text: str) -> Any:
    """The value that `option_text` turned into `text`."""
    if "+" in text.removeprefix("+"):
        return tuple(option_value(part) for part in text.removesuffix("+").split("+"))
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def as_plain(pairs: Iterable[tuple[str, Any]]) -> Mapping[str, Any]:
    """Options as JSON types."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in pairs}
