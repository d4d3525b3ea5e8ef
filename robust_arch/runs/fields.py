"""Types of the values in recorded files, and the models that check a whole file once, where it is read.

Others may have written these files: every value is bounded, so that sums, tables and terminals stay whole.
"""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, WrapValidator
from pydantic_core import PydanticCustomError

_EXACT = 2**53  # up to which a float holds every integer
_LARGEST = 1e100  # of a measured number: sums and squares of such numbers stay finite
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_CONTROL_IN_LINES = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_PER_STAGE = re.compile(r"[1-9][0-9]{0,8}(-[1-9][0-9]{0,8})*")
_IDENTIFIER = re.compile(r"[\w-][\w.-]*")
_SHOWN = 60  # characters of a value


def expect(allowed: str, fits: Callable[[Any], bool]) -> WrapValidator:
    """A validator that takes the values of the annotated type that fit; `allowed`: these in words."""

    def check(value: Any, inner: Callable[[Any], Any]) -> Any:
        try:
            found = inner(value)
            if fits(found):
                return found
        except ValidationError as error:
            if error.errors(include_url=False)[0]["loc"]:  # a value inside this one does not fit
                raise
        raise PydanticCustomError("misfit", "{allowed}", {"allowed": allowed})

    return WrapValidator(check)


def between(low: float, high: float, allowed: str) -> WrapValidator:
    """A validator that takes the numbers from `low` to `high`; no bound holds for NaN."""
    return expect(allowed, lambda value: low <= value <= high)


def _has_zone(value: str) -> bool:
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


Count = Annotated[int, between(0, _EXACT, "an integer of at least 0")]
Positive = Annotated[int, between(1, _EXACT, "an integer of at least 1")]
Seed = Annotated[int, between(-(2**63), 2**63 - 1, "an integer of 64 bits")]
Number = Annotated[float, between(-_LARGEST, _LARGEST, "a finite number")]
Measure = Annotated[float, between(0, _LARGEST, "a finite number of at least 0")]
Percent = Annotated[float, between(0, 100, "a percentage from 0 to 100")]
Points = Annotated[float, between(-100, 100, "a difference of percentages")]
Seconds = Annotated[float, between(0, _EXACT, "seconds, finite and at least 0")]
Message = Annotated[str, expect("text without control characters", lambda text: not _CONTROL_IN_LINES.search(text))]
Name = Annotated[str, expect("one line of text", lambda text: bool(text) and not _CONTROL.search(text))]


def _name_of_number(value: object) -> object:
    return str(value) if type(value) is int and abs(value) < 2**63 else value


Label = Annotated[Name, BeforeValidator(_name_of_number)]  # YAML reads some names as numbers
Identifier = Annotated[
    str, expect("letters, digits, `_`, `-` and `.`", lambda text: _IDENTIFIER.fullmatch(text) is not None)
]
PerStage = Annotated[
    str, expect("one positive integer per stage, like 5-5-5", lambda text: _PER_STAGE.fullmatch(text) is not None)
]
Moment = Annotated[str, expect("a time with its zone, like 2026-01-01T00:00:00+00:00", _has_zone)]
Interval = Annotated[
    list[Annotated[float, between(-100, 200, "a bound in percent")]],
    expect("two percentages, the lower one first", lambda bounds: len(bounds) == 2 and bounds[0] <= bounds[1]),
]


def _is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(map(_is_plain, value)) and all(map(_is_plain, value.values()))
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, str):
        return value.isascii() or not any(0xD800 <= ord(letter) < 0xE000 for letter in value)
    return value is None or -_LARGEST <= value <= _LARGEST  # type: ignore[operator]


Plain = Annotated[Any, expect("plain values: finite numbers, and text", _is_plain)]
"""Whatever JSON can hold."""


class MisfitError(ValueError):
    """A value that does not fit; its text is `{field} = {value}: expected {allowed}`."""

    def __init__(self, field: str, value: str, allowed: str) -> None:
        shown = value if len(value) <= _SHOWN else f"{value[:_SHOWN]}..."
        super().__init__(f"{field} = {shown}: expected {allowed}" if field else f"{shown}: expected {allowed}")
        self.field, self.allowed = field, allowed


def checked(kind: Any, value: Any, field: str) -> Any:
    """The value, if it is of the annotated type `kind`.

    Raises:
        MisfitError: if it is not; `field`: its name.
    """
    try:
        return TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        raise MisfitError(field, _shown(value), error.errors(include_url=False)[0]["msg"]) from None


class Fields(BaseModel):
    """Checked, immutable fields.

    Further ones, which a later version may have written, need only be plain. A field with a default is one that
    earlier versions did not write.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="allow")
    __pydantic_extra__: dict[str, Plain] = Field(init=False)

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Self:
        """The fields in `content`, as JSON holds them.

        Raises:
            MisfitError: for the first one that does not fit.
        """
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
        field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
        if first["type"] == "missing":
            raise MisfitError(field, "(missing)", "a value")
        allowed = "an object" if first["type"] == "model_type" else first["msg"].removeprefix("Input should be ")
        raise MisfitError(field, _shown(first["input"]), allowed)

    def plain(self) -> dict[str, Any]:
        """The fields that were given, as JSON holds them."""
        return self.model_dump(exclude_unset=True, by_alias=True)


def _shown(value: object) -> str:
    try:
        return ascii(value)
    except ValueError:  # an integer of thousands of digits
        return f"<{type(value).__name__}>"
