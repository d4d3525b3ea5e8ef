"""What the files of a run and of a study may hold; every field is checked once, where its file is read.

Fields that are not named here are ignored: a later version may have written them. `optional` fields are those that
earlier versions did not write.
"""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import numpy as np

Check = Callable[[Any], None]
"""Raises MisfitError unless the value fits."""

SMOOTHNESS_ATTACK = "pgd20"
"""The attack on whose images stability, local Lipschitz constants and FOSC are computed."""
_WHOLE = 2**53  # up to which a float holds every integer
_LARGEST = 1e100  # of a measured number: sums and squares of such numbers stay finite
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_CONTROL_IN_LINES = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_PER_STAGE = re.compile(r"[1-9][0-9]{0,8}(-[1-9][0-9]{0,8})*")
_IDENTIFIER = re.compile(r"[\w-][\w.-]*")
_SHOWN = 60  # characters of a value


class MisfitError(ValueError):
    """A field that does not fit; its text is `{field} = {value}: expected {what}`."""

    def __init__(self, value: Any, expected: str) -> None:
        super().__init__(value, expected)
        self.value, self.expected, self.path = value, expected, ""

    def inside(self, part: str) -> "MisfitError":
        """The same one level up; part: a key, or a place like `[0]`."""
        joint = "." if self.path and not self.path.startswith("[") else ""
        self.path = f"{part}{joint}{self.path}"
        return self

    def __str__(self) -> str:
        shown = ascii(self.value)
        shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
        return f"{self.path} = {shown}: expected {self.expected}" if self.path else f"{shown}: expected {self.expected}"


class _Missing:
    def __repr__(self) -> str:
        return "(missing)"


def integer(low: int, high: int = _WHOLE) -> Check:
    """An integer from `low` to `high`."""
    expected = f"an integer of at least {low}" if high == _WHOLE else f"an integer from {low} to {high}"

    def check(value: Any) -> None:
        if type(value) is not int or not low <= value <= high:
            raise MisfitError(value, expected)

    return check


def number(low: float = -_LARGEST, high: float = _LARGEST, expected: str = "a finite number") -> Check:
    """A number from `low` to `high`."""

    def check(value: Any) -> None:
        if type(value) not in (int, float) or not low <= value <= high:  # also NaN
            raise MisfitError(value, expected)

    return check


count, positive = integer(0), integer(1)
finite, measure = number(), number(low=0.0, expected="a finite number of at least 0")
percent = number(0.0, 100.0, "a percentage from 0 to 100")
seconds = number(0.0, _WHOLE, "seconds, finite and at least 0")
any_integer = integer(-(2**63), 2**63 - 1)


def flag(value: Any) -> None:
    """True or false."""
    if type(value) is not bool:
        raise MisfitError(value, "true or false")


def any_text(value: Any) -> None:
    """Text."""
    if type(value) is not str:
        raise MisfitError(value, "text")


def message(value: Any) -> None:
    """Text of one or several lines."""
    if type(value) is not str or not (value.isprintable() or not _CONTROL_IN_LINES.search(value)):
        raise MisfitError(value, "text without control characters")


def name(value: Any) -> None:
    """Text of one line that is not empty."""
    if type(value) is not str or not value or not (value.isprintable() or not _CONTROL.search(value)):
        raise MisfitError(value, "one line of text")


def label(value: Any) -> None:
    """A name, or a number, as which YAML reads some names."""
    if type(value) is not int:
        name(value)
    else:
        any_integer(value)


def identifier(value: Any) -> None:
    """The name of a run's folder, or of an evaluation's files."""
    if type(value) is not str or not _IDENTIFIER.fullmatch(value):
        raise MisfitError(value, "letters, digits, `_`, `-` and `.`")


def per_stage(value: Any) -> None:
    """Positive integers like `5-5-5`."""
    if type(value) is not str or not _PER_STAGE.fullmatch(value):
        raise MisfitError(value, "one positive integer per stage, like 5-5-5")


def moment(value: Any) -> None:
    """A time of ISO 8601 with its zone."""
    expected = "a time with its zone, like 2026-01-01T00:00:00+00:00"
    try:
        zone = datetime.fromisoformat(value).tzinfo
    except (TypeError, ValueError):
        raise MisfitError(value, expected) from None
    if zone is None:
        raise MisfitError(value, expected)


def nullable(check: Check) -> Check:
    """Null, or what `check` takes."""

    def check_or_null(value: Any) -> None:
        if value is not None:
            check(value)

    return check_or_null


def sequence(check: Check, least: int = 0) -> Check:
    """A list of at least so many items, each as `check` says."""

    def check_items(value: Any) -> None:
        if type(value) is not list or len(value) < least:
            raise MisfitError(value, f"a list of at least {least}" if least else "a list")
        for place, item in enumerate(value):
            try:
                check(item)
            except MisfitError as misfit:
                raise misfit.inside(f"[{place}]") from None

    return check_items


def mapping(key: Check, check: Check) -> Check:
    """An object of any number of fields."""

    def check_items(value: Any) -> None:
        if type(value) is not dict:
            raise MisfitError(value, "an object")
        for field, item in value.items():
            key(field)
            try:
                check(item)
            except MisfitError as misfit:
                raise misfit.inside(field) from None

    return check_items


def fields(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    """An object with these fields, and possibly others."""
    checks = [(field, check, field in required) for field, check in {**required, **(optional or {})}.items()]

    def check_fields(value: Any) -> None:
        if type(value) is not dict:
            raise MisfitError(value, "an object")
        for field, check, needed in checks:
            try:
                if field in value:
                    check(value[field])
                elif needed:
                    raise MisfitError(_Missing(), "a value")
            except MisfitError as misfit:
                raise misfit.inside(field) from None

    return check_fields


def plain(value: Any) -> None:
    """Whatever JSON can hold; no number is infinite, no text holds control characters."""
    if isinstance(value, dict):
        mapping(name, plain)(value)
    elif isinstance(value, list):
        sequence(plain)(value)
    elif isinstance(value, str):
        message(value)
    elif isinstance(value, float):
        finite(value)
    elif type(value) is int:
        any_integer(value)


_FACTS = fields(
    {
        "run_id": identifier, "study": name, "arch": name, "family": name, "depths": per_stage, "widths": per_stage,
        "params": positive, "macs": positive, "data": label,
    },
    {
        "objective": nullable(label), "recipe": nullable(label), "train_threat": nullable(name),
        "seed": nullable(any_integer), "epochs": nullable(positive),
    },
)  # fmt: skip

status = fields(
    {"run": _FACTS},
    {
        "state": name, "attempts": count, "host": name, "end": nullable(name), "launcher": nullable(name),
        "weights": nullable(name), "error": nullable(any_text), "updated": moment,
    },
)  # fmt: skip
"""status.json. Without `state` a run is planned, without `attempts` it was never begun."""
UNRECORDED_FACTS = dict.fromkeys(("objective", "recipe", "train_threat", "seed", "epochs"))
"""What a status.json without these fields counts as holding in `run`."""

_STAGES = sequence(count, least=1)


def _cost(value: Any) -> None:
    fields({"params": positive, "macs": positive, "stage_params": _STAGES, "stage_macs": _STAGES})(value)
    for part in ("stage_params", "stage_macs"):
        if not sum(value[part]) or len(value[part]) != len(value["stage_params"]):
            raise MisfitError(value[part], "one integer per stage, not all of them 0").inside(part)


_SETS = {"name": label, "train": count, "val": count, "test": count}
_VERSIONS = mapping(name, nullable(name))
_HARDWARE = fields(
    {},
    {
        "processor": name, "cores": nullable(count), "gpus": sequence(name), "threads": nullable(count),
        "system": name,
    },
)  # fmt: skip
_PROVENANCE = {
    "commit": nullable(name), "torch_version": name, "versions": _VERSIONS, "hardware": _HARDWARE, "command": message,
}  # fmt: skip

result = fields(
    {
        "best_epoch": count, "last_epoch": count, "best_val_robust_acc": percent, "train_seconds": seconds,
        "selection_images": positive, "finished": moment,
    },
    {
        "run_id": identifier, "epochs": positive, "last_val_robust_acc": percent,
        "robust_overfitting": number(-100.0, 100.0, "a difference of percentages"), "flags": sequence(message),
        "package_version": name, "seeds": mapping(name, nullable(any_integer)), "data": fields(_SETS), "cost": _cost,
        **_PROVENANCE,
    },
)  # fmt: skip
"""result.json."""

_INTERVAL = sequence(number(-100.0, 200.0, "a bound in percent"))


def _interval(value: Any) -> None:
    _INTERVAL(value)
    if len(value) != 2 or value[0] > value[1]:
        raise MisfitError(value, "two percentages, the lower one first")


_SHARE = {"count": count, "n": positive, "percent": percent, "interval": _interval}
_share = fields(_SHARE)
_MEAN = fields({"mean": nullable(finite), "n": count}, {"left_out": count})
_MESSAGES = sequence(message)
_ATTACK_FIELDS = {
    "settings": plain, "eps": name, "seed": any_integer, "implementation": name, "seconds": seconds,
    "problems": _MESSAGES, "warnings": _MESSAGES,
}  # fmt: skip
_STAGE = fields({"attack": name, "attacked": count, "standing": count})
_ATTACK_EXTRAS = {"images": flag, "stages": sequence(_STAGE)}
_VERDICT = fields({"name": name, "ok": flag, "text": message})
_LOSSES = fields({"gradient": sequence(finite, 1), "random": sequence(finite, 1)})
_DIRECTIONS = fields({"rel_t": sequence(finite, 1), "cross_entropy": _LOSSES, "margin": _LOSSES})


def _norm(value: Any) -> None:
    if value not in ("linf", "l2"):
        raise MisfitError(value, "linf or l2")


_DIAGNOSTICS = fields(
    {
        "n": positive, "norm": _norm, "threat": name,
        "eps": fields({"points": sequence(fields({"eps": name, **_SHARE}), 1)}),
        "steps": sequence(fields({"steps": positive, **_SHARE}), 1),
        "square": fields({"white_box": _share, "both": _share}),
        "directions": _DIRECTIONS, "verdicts": sequence(_VERDICT),
    },
    {"examples": positive, "seed": any_integer},
)  # fmt: skip


def _diagnostics(value: Any) -> None:
    _DIAGNOSTICS(value)
    found = value["directions"]
    for loss in ("cross_entropy", "margin"):
        for way in ("gradient", "random"):
            if len(found[loss][way]) != len(found["rel_t"]):
                misfit = MisfitError(found[loss][way], f"{len(found['rel_t'])} numbers")
                raise misfit.inside(way).inside(loss).inside("directions")


_SMOOTHNESS = fields(
    {
        "n": count,
        "stages": sequence(
            fields({"name": name, **dict.fromkeys(("from_input", "alone", "alone_max", "bound"), nullable(measure))})
        ),
    },
    {"examples": positive, "seed": any_integer},
)  # fmt: skip
_RESERVED = ("clean", "index", "worst_case", "diagnostics", "smoothness")


def _attack_name(value: Any) -> None:
    name(value)
    if value in _RESERVED:
        raise MisfitError(value, f"a name of an attack, not {', '.join(_RESERVED)}")


_IDENTITY = {"checkpoint": name, "weights": name, "threat": name, "data": label, "n_test": positive}
_EVALUATION_EXTRAS = {
    "worst_case": _share, "stability": _share, **dict.fromkeys(("lipschitz", "lipschitz_kl", "lipschitz_l2"), _MEAN),
    "fosc": _MEAN, "diagnostics": _diagnostics, "smoothness": _SMOOTHNESS,
    "about": fields({}, {**_PROVENANCE, "device": name}),
}  # fmt: skip
_CHECKED = fields({"name": name, "state": name, "detail": message})
_OWN = {
    "eval_id": identifier, "run_id": identifier, "eps": name, "examples_fingerprint": name,
    "preflight": sequence(_CHECKED),
    "invalid": _MESSAGES, "warnings": _MESSAGES,
}  # fmt: skip

evaluation = fields(
    {
        **_IDENTITY, "clean": _share,
        "attacks": mapping(_attack_name, fields(_SHARE, {**_ATTACK_FIELDS, **_ATTACK_EXTRAS})),
    },
    {**_OWN, **_EVALUATION_EXTRAS},
)  # fmt: skip
"""evaluations/<eval_id>.json, of any version."""

extensible_evaluation = fields(
    {
        **_IDENTITY, **_OWN,
        "attacks": mapping(_attack_name, fields({**_SHARE, **_ATTACK_FIELDS}, _ATTACK_EXTRAS)),
    },
    {"clean": _share, **_EVALUATION_EXTRAS},
)  # fmt: skip
"""The same of this version, to which further attacks can be added; clean accuracy may not have come yet."""


def is_whole_pair(content: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether the arrays are those of a checked evaluation: an index, and booleans for clean and every attack."""
    shapes = {name: array.shape for name, array in arrays.items()}
    flags = ("clean", *content["attacks"])
    whole = all(shapes.get(name) == (content["n_test"],) for name in ("index", *flags))
    return whole and all(arrays[name].dtype == np.bool_ for name in flags)


_ABOUT = {
    "command": message, "budgets": sequence(name), "considered": count, "rejected": count, "not_sampled": count,
}  # fmt: skip
_PLANS = fields({}, {**_ABOUT, "merged": sequence(fields({}, _ABOUT))})


def about(value: Any) -> None:
    """study.json; a merge copies all of it, so that it must be plain too."""
    _PLANS(value)
    plain(value)
