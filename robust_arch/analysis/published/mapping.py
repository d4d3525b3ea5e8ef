"""What the columns of a published table mean: a YAML file, checked before the table is read."""

from __future__ import annotations

import re
from collections.abc import Mapping as Map
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

import yaml

from robust_arch.architectures.family import DEFAULT_FAMILY, family_names
from robust_arch.common.plain import is_bounded
from robust_arch.errors import InputError, invalid, require_keys
from robust_arch.runs import SITE_COLUMNS

MAPPINGS = Path(__file__).parent / "mappings"
SELECTIONS = ("test", "held-out", "none", "unknown")
CHECKPOINTS = ("best", "last", "external")
VALUES = (
    "objective", "recipe", "train_threat", "data", "seed", "epochs", "threat", "n_test", "weights", "checkpoint",
    *SITE_COLUMNS,
)  # fmt: skip
"""Columns of results.csv that a mapping fills with a text, in which `${column}` is a cell of the table."""
_NEEDED = ("data", "threat", "n_test")
_PARTS = (
    "source", "licence", "best", "selected_on", "note", "delimiter", "missing", "where", "unit", "architecture",
    "values", "epoch", "train_images", "evaluations",
)  # fmt: skip
_ARCHITECTURE = ("id", "family", "depths", "widths", "widening", "known", "params", "macs", "scale", "task")
_ATTACK = re.compile(r"[a-z][a-z0-9_]{0,39}")
_RESERVED = ("clean", "worst_case")
_LONGEST = 1_000_000  # bytes


class CellText(Template):
    """A text in which `${column}` stands for a cell; a column's name may hold blanks and signs."""

    flags = re.RegexFlag(0)
    idpattern = r"(?!)"  # only the form with braces
    braceidpattern = r"[^{}]+"

    @property
    def columns(self) -> list[str]:
        """The columns that it names."""
        return self.get_identifiers()


@dataclass(frozen=True)
class Evaluation:
    """One evaluation that each row of the table holds.

    Attributes:
        values: column of results.csv to its text.
        clean: the column of clean accuracy.
        attacks: attack to the column of accuracy under it.
    """

    values: Map[str, CellText]
    clean: str
    attacks: Map[str, str]


@dataclass(frozen=True)
class Architecture:
    """How the table names architectures.

    Attributes:
        id: text that names one; None where depths and widths do.
        family: of this project, or of the table where an id names the architecture.
        depths: per stage a number or the column that holds it.
        widths: the same, in channels.
        widening: the same, in multiples of 16, 32, 64, ... channels; instead of `widths`.
        known: name in the table to depths and widths; other names are left out.
        params: the column of parameters; None for the closed form.
        macs: the column of multiply-accumulates.
        scale: `params` and `macs` to the unit of their columns.
        classes: of the task that the closed form is for.
        image_shape: (C, H, W) of its images.
    """

    id: CellText | None
    family: str
    depths: Sequence[int | float | str] = ()
    widths: Sequence[int | float | str] = ()
    widening: Sequence[int | float | str] = ()
    known: Map[str, Map[str, Any]] = field(default_factory=dict)
    params: str | None = None
    macs: str | None = None
    scale: Map[str, float] = field(default_factory=dict)
    classes: int = 10
    image_shape: tuple[int, int, int] = (3, 32, 32)

    @property
    def columns(self) -> list[str]:
        """The columns that it reads."""
        own = [each for each in (*self.depths, *self.widths, *self.widening) if isinstance(each, str)]
        return [*own, *(self.id.columns if self.id else ()), *(each for each in (self.params, self.macs) if each)]


@dataclass(frozen=True)
class Mapping:
    """What the columns of a published table mean.

    Attributes:
        name: of the file, without its ending.
        source: where the table is from.
        licence: of the data.
        best: what the checkpoint `best` means there.
        selected_on: the images on which `best` was picked, one of SELECTIONS.
        note: anything else that a reader of the numbers must know.
        architecture: how the table names architectures.
        evaluations: what each row holds; none for a table of architectures alone.
        percent: whether accuracies are in percent; else they are fractions.
        missing: cells that mean that a number was not computed, besides the empty one.
        where: column to the cells of the rows that count.
        delimiter: between cells.
        epoch: the columns of the epoch and of what picks `best`, for a table of one row per epoch.
        train_images: training images per epoch; None where that is not known.
    """

    name: str
    source: str
    licence: str
    best: str
    selected_on: str
    note: str
    architecture: Architecture
    evaluations: Sequence[Evaluation]
    percent: bool
    missing: frozenset[str]
    where: Map[str, frozenset[str]]
    delimiter: str
    epoch: tuple[str, str] | None
    train_images: int | None

    @property
    def columns(self) -> list[str]:
        """Every column of the table that is read, once."""
        named = [*self.architecture.columns, *self.where, *(self.epoch or ())]
        for each in self.evaluations:
            named += [each.clean, *each.attacks.values(), *(c for text in each.values.values() for c in text.columns)]
        return list(dict.fromkeys(named))


def mapping_names() -> list[str]:
    """The mappings that come with the project."""
    return sorted(path.stem for path in MAPPINGS.glob("*.yaml"))


def read_mapping(name: str) -> Mapping:
    """A mapping by its name in this project, or by its path.

    Raises:
        InputError: for a file that is not there or that does not fit; nothing in it is executed.
    """
    own = MAPPINGS / f"{name}.yaml"
    path = own if name in mapping_names() else Path(name)
    if not path.is_file():
        raise invalid("--columns", name, f"a YAML file, or one of {', '.join(mapping_names())}")
    if path.stat().st_size > _LONGEST:
        raise invalid("--columns", name, f"a YAML file of at most {_LONGEST:,} bytes")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise invalid("--columns", name, f"a YAML file ({str(error).splitlines()[0]})") from None
    if not is_bounded(content):
        raise invalid("--columns", name, "a YAML file of at most 10,000 values, nested at most 32 deep")
    try:
        return _mapping(path.stem, _group("mapping", content, _PARTS, ("source", "licence", "architecture")))
    except InputError as error:
        raise InputError(f"--columns = {name!r}: {error}") from None


def _mapping(name: str, content: Map[str, Any]) -> Mapping:
    evaluations = content.get("evaluations") or []
    if not isinstance(evaluations, list):
        raise invalid("evaluations", evaluations, "a list")
    shared = _values("values", content.get("values") or {})
    where = _group("where", content.get("where") or {})
    unit = content.get("unit")
    if unit not in ("percent", "fraction") and evaluations:
        raise invalid("unit", unit, "percent or fraction")
    selected_on = content.get("selected_on", "unknown")
    if selected_on not in SELECTIONS:
        raise invalid("selected_on", selected_on, f"one of {', '.join(SELECTIONS)}")
    delimiter = content.get("delimiter", ",")
    if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '"\r\n':
        raise invalid("delimiter", delimiter, "one character")
    return Mapping(
        name=name,
        source=_text("source", content["source"]),
        licence=_text("licence", content["licence"]),
        best=_text("best", content.get("best", "not stated")),
        selected_on=selected_on,
        note=_text("note", content.get("note", "none")),
        architecture=_architecture(content["architecture"]),
        evaluations=[_evaluation(f"evaluations[{place}]", each, shared) for place, each in enumerate(evaluations)],
        percent=unit == "percent",
        missing=_cells("missing", content.get("missing") or []),
        where={str(column): _cells(f"where.{column}", cells) for column, cells in where.items()},
        delimiter=delimiter,
        epoch=_epoch(content.get("epoch")),
        train_images=_whole("train_images", content.get("train_images")),
    )


def _group(key: str, content: Any, allowed: Sequence[str] | None = None, required: Sequence[str] = ()) -> Map[str, Any]:
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise invalid(key, content, "keys with values")
    if allowed is not None:
        require_keys(content, "" if key == "mapping" else key, allowed, required)
    return content


def _text(key: str, value: Any) -> str:
    text = " ".join(value.split()) if isinstance(value, str) else None
    if not text or not text.isprintable() or len(text) > 2000:
        raise invalid(key, value, "a text of at most 2,000 printable characters")
    return text


def _whole(key: str, value: Any) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**53):
        raise invalid(key, value, "an integer of at least 1")
    return value


def _cells(key: str, value: Any) -> frozenset[str]:
    cells = value if isinstance(value, list) else [value]
    if any(isinstance(cell, dict | list) or cell is None for cell in cells):
        raise invalid(key, value, "a cell, or a list of cells")
    return frozenset(str(cell) for cell in cells)


def _template(key: str, value: Any) -> CellText:
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).isprintable() or value == "":
        raise invalid(key, value, "a text, in which ${column} is a cell")
    text = CellText(str(value))
    if not text.is_valid():
        raise invalid(key, value, "a text, in which ${column} is a cell and $$ a dollar")
    return text


def _values(key: str, content: Any) -> dict[str, CellText]:
    return {name: _template(f"{key}.{name}", value) for name, value in _group(key, content, VALUES).items()}


def _evaluation(key: str, content: Any, shared: Map[str, CellText]) -> Evaluation:
    group = _group(key, content, (*VALUES, "clean", "attacks"), ("clean", "attacks"))
    own = {name: value for name, value in group.items() if name in VALUES}
    values = {**shared, **_values(key, own)}
    values.setdefault("checkpoint", CellText("external"))
    values.setdefault("weights", CellText("raw"))
    if missing := [name for name in _NEEDED if name not in values]:
        raise InputError(f"{key}.{missing[0]}: missing; it belongs there, or in values")
    if values["checkpoint"].template not in CHECKPOINTS:
        raise invalid(f"{key}.checkpoint", values["checkpoint"].template, f"one of {', '.join(CHECKPOINTS)}")
    attacks = _group(f"{key}.attacks", group["attacks"])
    if not attacks:
        raise invalid(f"{key}.attacks", attacks, "at least one attack with its column")
    for name in attacks:
        if not _ATTACK.fullmatch(name) or name in _RESERVED:
            raise invalid(f"{key}.attacks", name, "names of lower-case letters, digits and _, not clean or worst_case")
    columns = {name: _text(f"{key}.attacks.{name}", column) for name, column in attacks.items()}
    return Evaluation(values, _text(f"{key}.clean", group["clean"]), columns)


def _epoch(content: Any) -> tuple[str, str] | None:
    if content is None:
        return None
    group = _group("epoch", content, ("column", "best"), ("column", "best"))
    return _text("epoch.column", group["column"]), _text("epoch.best", group["best"])


def _architecture(content: Any) -> Architecture:
    group = _group("architecture", content, _ARCHITECTURE)
    family = _text("architecture.family", group.get("family", DEFAULT_FAMILY))
    name = None if group.get("id") is None else _template("architecture.id", group["id"])
    stages = {key: _stages(f"architecture.{key}", group.get(key)) for key in ("depths", "widths", "widening")}
    known = _group("architecture.known", group.get("known") or {})
    staged = bool(stages["depths"]) and bool(stages["widths"]) != bool(stages["widening"])
    if not staged and (name is None or any(stages.values())):
        raise InputError("architecture: id, or depths with either widths or widening")
    if (staged or known) and family not in family_names():
        raise invalid("architecture.family", family, f"one of {', '.join(family_names())}")
    if staged and len({len(values) for values in stages.values() if values}) > 1:
        raise InputError("architecture: as many depths as widths or widening factors")
    task = _group("architecture.task", group.get("task") or {}, ("classes", "image_shape"))
    return Architecture(
        id=name,
        family=family,
        known={str(each): _known(f"architecture.known.{each}", value) for each, value in known.items()},
        params=_column("architecture.params", group.get("params")),
        macs=_column("architecture.macs", group.get("macs")),
        scale=_scale(group.get("scale") or {}),
        classes=_whole("architecture.task.classes", task.get("classes")) or 10,
        image_shape=_shape(task.get("image_shape", [3, 32, 32])),
        **stages,
    )


def _column(key: str, value: Any) -> str | None:
    return None if value is None else _text(key, value)


def _stages(key: str, value: Any) -> tuple[int | float | str, ...]:
    if value is None:
        return ()
    numbers = isinstance(value, list) and all(
        isinstance(each, int | float | str) and not isinstance(each, bool) for each in value
    )
    if not numbers or not value:
        raise invalid(key, value, "a list of numbers or columns, one per stage")
    return tuple(value)


def _known(key: str, value: Any) -> Map[str, Any]:
    group = _group(key, value, ("family", "depths", "widths"), ("depths", "widths"))
    for name in ("depths", "widths"):
        whole = isinstance(group[name], list) and all(type(each) is int and each > 0 for each in group[name])
        if not whole or len(group[name]) != len(group["depths"]):
            raise invalid(f"{key}.{name}", group[name], "a list of positive integers, one per stage")
    if (family := group.get("family", DEFAULT_FAMILY)) not in family_names():
        raise invalid(f"{key}.family", family, f"one of {', '.join(family_names())}")
    return group


def _scale(content: Any) -> dict[str, float]:
    group = _group("architecture.scale", content, ("params", "macs"))
    for name, value in group.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e15:
            raise invalid(f"architecture.scale.{name}", value, "a number above 0")
    return {name: float(value) for name, value in group.items()}


def _shape(value: Any) -> tuple[int, int, int]:
    if not isinstance(value, list) or len(value) != 3 or not all(type(each) is int and each > 0 for each in value):
        raise invalid("architecture.task.image_shape", value, "[channels, height, width]")
    return value[0], value[1], value[2]
