"""Groups of comparable rows of results.csv: equal in everything but the architecture and the seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from robust_arch.analysis.formatting import counted
from robust_arch.errors import InputError
from robust_arch.runs import Evaluation

GROUP_COLUMNS = ("objective", "recipe", "train_threat", "threat", "data", "epochs", "n_test", "weights", "checkpoint")
_NOT_ATTACKS = ("clean_acc", "worst_case_acc")


@dataclass(frozen=True)
class Group:
    """Comparable rows.

    Attributes:
        key: the values of GROUP_COLUMNS, then the names of the attacks in the worst case.
        rows: of results.csv.
    """

    key: tuple[Any, ...]
    rows: pd.DataFrame

    @property
    def n_test(self) -> int:
        """Test images behind every accuracy of the group."""
        return int(self.key[GROUP_COLUMNS.index("n_test")])

    @property
    def checkpoint(self) -> str:
        """`best`, `last` or `external`."""
        return str(self.key[GROUP_COLUMNS.index("checkpoint")])

    @property
    def weights(self) -> str:
        """`raw`, or how they were averaged over training: `ema` or `swa`."""
        return str(self.key[GROUP_COLUMNS.index("weights")])

    @property
    def rank(self) -> tuple[bool, bool]:
        """Sorts groups of the same runs: `best` before other checkpoints, then averaged weights before raw ones."""
        return self.checkpoint != "best", self.weights == "raw"

    def is_like(self, other: Group) -> bool:
        """Whether they differ in nothing but checkpoint and weights."""
        names = (*GROUP_COLUMNS, "attacks")
        pairs = zip(names, self.key, other.key, strict=True)
        return all(own == its for name, own, its in pairs if name not in ("checkpoint", "weights"))

    @property
    def attacks(self) -> tuple[str, ...]:
        """Names of the attacks in the worst case."""
        attacks: tuple[str, ...] = self.key[-1]
        return attacks

    def holds(self, record: Evaluation) -> bool:
        """Whether an evaluation record belongs to this group, as far as the record tells (not how it was trained)."""
        own = dict(zip(GROUP_COLUMNS, self.key, strict=False))
        known = [name for name in GROUP_COLUMNS if name in Evaluation.model_fields]
        return set(record.attacks) == set(self.attacks) and all(own[name] == getattr(record, name) for name in known)

    def difference(self, other: Group) -> str:
        """How this group differs from `other`, like "checkpoint last instead of best"."""
        names = ["test images" if name == "n_test" else name.replace("_", " ") for name in GROUP_COLUMNS]
        pairs = zip([*names, "attacks"], self.key, other.key, strict=True)
        return ", ".join(f"{name} {_text(own)} instead of {_text(its)}" for name, own, its in pairs if own != its)

    def __str__(self) -> str:
        epochs = _text(self.key[GROUP_COLUMNS.index("epochs")])
        return self.described(f"{epochs} {'epoch' if epochs == '1' else 'epochs'}")  # the number may be unrecorded

    def described(self, epochs: str) -> str:
        """What its rows have in common, in words; epochs: how long they were trained, like "10 epochs"."""
        objective, recipe, train_threat, threat, data, _, _, weights, checkpoint, attacks = map(_text, self.key)
        return (
            f"checkpoint {checkpoint}, objective {objective}, recipe {recipe} ({epochs}, {weights} weights), "
            f"data {data}, trained under {train_threat}, attacked under {threat} by {attacks}, "
            f"{counted(self.n_test, 'test image')}"
        )


def accuracy_columns(frame: pd.DataFrame) -> list[str]:
    """Columns with at least one accuracy, in percent: clean first, then the attacks, the worst case last."""
    attacks = [name for name in frame.columns if name.endswith("_acc") and name not in _NOT_ATTACKS]
    return [name for name in ("clean_acc", *attacks, "worst_case_acc") if frame[name].notna().any()]


def evaluations(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with numbers; those of failed and diverged runs are empty."""
    return frame[frame["clean_acc"].notna()]


def groups(frame: pd.DataFrame) -> list[Group]:
    """Every evaluation in exactly one group; groups and their rows are in the order of `frame`."""
    rows = evaluations(frame)
    members: dict[tuple[Any, ...], list[int]] = {}
    for position, key in enumerate(_keys(rows)):
        members.setdefault(key, []).append(position)
    return [Group(key, rows.iloc[positions]) for key, positions in members.items()]


def at_last(frame: pd.DataFrame, best: Group) -> Group | None:
    """The rows of `frame` that differ from those of `best` in being of the last epoch alone; None without any."""
    alike = (group for group in groups(frame) if group.is_like(best) and group.weights == best.weights)
    return next((group for group in alike if group.checkpoint == "last"), None)


def main_group(frame: pd.DataFrame) -> Group | None:
    """The group that figures show: of those at `best` with a worst case the one with most runs.

    Of equals it is the first with averaged weights, else the first. Without any at `best` it is the largest of those at
    `external`, as in some published tables.
    """
    whole = [group for group in groups(frame) if group.rows["worst_case_acc"].notna().all()]
    best, external = ([group for group in whole if group.checkpoint == which] for which in ("best", "external"))
    return max(best or external, key=lambda group: (len(group.rows), group.weights != "raw"), default=None)


def only_group(frame: pd.DataFrame) -> Group:
    """The only group of a frame.

    Raises:
        InputError: for rows that are not comparable, or none.
    """
    found = groups(frame)
    if len(found) != 1 or len(found[0].rows) != len(frame):
        raise InputError(f"rows of {len(found)} groups, or without numbers: expected rows of exactly one group")
    return found[0]


def _keys(rows: pd.DataFrame) -> Iterator[tuple[Any, ...]]:
    names = [str(name) for name in rows.columns if str(name).endswith("_acc") and name not in _NOT_ATTACKS]
    # NaN is unequal to itself, so each row without an entry would be a group of its own
    entries = [rows[name].astype(object).where(rows[name].notna(), None) for name in GROUP_COLUMNS]
    for *key, computed in zip(*entries, rows[names].notna().to_numpy(), strict=True):
        attacks = tuple(name.removesuffix("_acc") for name, there in zip(names, computed, strict=True) if there)
        yield (*key, attacks)


def _text(value: Any) -> str:
    if value is None:
        return "unrecorded"
    if isinstance(value, tuple):
        return " + ".join(value) or "nothing"
    return f"{value:g}" if isinstance(value, float) else str(value)
