"""What a network is: a family and, for each stage, how deep and how wide."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from robust_arch.architectures.family import get_family
from robust_arch.architectures.initialisation import INITIALISATIONS
from robust_arch.architectures.layers import ACTIVATIONS
from robust_arch.architectures.options import as_plain, option_text
from robust_arch.errors import invalid, require_keys


def _integers(key: str, values: Any) -> tuple[int, ...]:
    """`values` as a tuple of integers of at least 1, or an InputError that names `key`."""
    if isinstance(values, Mapping) or not isinstance(values, Iterable):
        raise invalid(key, values, "a list of integers, one per stage")
    numbers = tuple(values)
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 1 for n in numbers):
        raise invalid(key, values, "an integer of at least 1 for each stage")
    return numbers


def numbers_text(numbers: Iterable[float]) -> str:
    """Numbers of the stages as one text, like `5-5-5`."""
    return "-".join(f"{number:g}" if isinstance(number, float) else str(number) for number in numbers)


def numbers_of(text: str) -> tuple[int, ...]:
    """The inverse of `numbers_text` for integers; ValueError for another text."""
    return tuple(int(part) for part in text.split("-"))


@dataclass(frozen=True)
class ArchSpec:
    """An architecture; raises InputError where no network can be built.

    Attributes:
        family: name of a module of `families/`.
        depths: blocks per stage.
        widths: channels per stage.
        stem_width: channels before the first stage.
        activation: one of ACTIVATIONS.
        dropout: probability inside the blocks.
        initialisation: one of INITIALISATIONS.
        options: settings that only this family has, given as a mapping; kept as sorted pairs of those that differ from
            the family's defaults.
    """

    family: str
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    stem_width: int = 16
    activation: str = "relu"
    dropout: float = 0.0
    initialisation: str = "published"
    options: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "depths", _integers("arch.depths", self.depths))
        object.__setattr__(self, "widths", _integers("arch.widths", self.widths))
        _integers("arch.stem_width", (self.stem_width,))
        if len(self.depths) != len(self.widths):
            raise invalid("arch.widths", self.widths, f"as many stages as arch.depths = {self.depths}")
        if self.activation not in ACTIVATIONS:
            raise invalid("arch.activation", self.activation, f"one of {', '.join(ACTIVATIONS)}")
        if isinstance(self.dropout, bool) or not isinstance(self.dropout, int | float) or not 0 <= self.dropout < 1:
            raise invalid("arch.dropout", self.dropout, "a probability in [0, 1)")
        object.__setattr__(self, "dropout", float(self.dropout))
        if self.initialisation not in INITIALISATIONS:
            raise invalid("arch.initialisation", self.initialisation, f"one of {', '.join(INITIALISATIONS)}")
        family = get_family(self.family)
        object.__setattr__(self, "options", family.options.read(self.options).for_stages(len(self.depths)).changed())
        family.validate(self)

    @property
    def depths_text(self) -> str:
        """The depths like `5-5-5`."""
        return numbers_text(self.depths)

    @property
    def widths_text(self) -> str:
        """The widths like `320-640-512`."""
        return numbers_text(self.widths)

    @property
    def settings_text(self) -> str:
        """The activation, then other settings than depths, widths and stem that differ from their defaults."""
        parts = [self.activation]
        parts += [f"dropout {self.dropout}"] if self.dropout else []
        parts += [] if self.initialisation == "published" else [f"initialisation {self.initialisation}"]
        return ", ".join([*parts, *(f"{key} {option_text(value)}" for key, value in self.options)])

    @property
    def described(self) -> str:
        """Family and sizes in words, for errors."""
        return f"{self.family}, depths {self.depths}, widths {self.widths}, stem_width {self.stem_width}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, every field; initialisation and options only where they are not the default."""
        values = {**asdict(self), "depths": list(self.depths), "widths": list(self.widths)}
        values["options"] = as_plain(self.options)
        defaults = {"initialisation": "published", "options": {}}  # older records have neither field
        return {key: value for key, value in values.items() if key not in defaults or value != defaults[key]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ArchSpec":
        """The inverse of `to_dict`; an unknown or missing field raises InputError."""
        require_keys(values, "arch", [field.name for field in fields(cls)], ("family", "depths", "widths"))
        return cls(**values)

    def to_json(self) -> str:
        """One line of JSON with sorted keys."""
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "ArchSpec":
        """The inverse of `to_json`."""
        try:
            values = json.loads(text)
        except ValueError as error:
            raise invalid("arch", text, f"a JSON object ({error})") from None
        if not isinstance(values, dict):
            raise invalid("arch", text, "a JSON object with family, depths and widths")
        return cls.from_dict(values)
