"""What an evaluation is asked to do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from robust_arch.attacks import Attack
from robust_arch.errors import invalid

CHECKPOINTS = ("best", "last")


@dataclass(frozen=True)
class NamedAttack:
    """An attack with its name in the results and the settings that determine its numbers."""

    name: str
    attack: Attack
    settings: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """attacks: in order. n: test examples, class-stratified by a fixed seed, None for all. seed: of the attacks."""

    attacks: tuple[NamedAttack, ...]
    n: int | None = None
    batch_size: int = 250
    seed: int = 0
    checkpoints: tuple[str, ...] = field(default=CHECKPOINTS)

    def __post_init__(self) -> None:
        for key in ("n", "batch_size"):
            value = getattr(self, key)
            if value is None and key == "n":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise invalid(f"evaluate.{key}", value, "an integer of at least 1" + (", or null" * (key == "n")))
        if not self.checkpoints or not set(self.checkpoints) <= set(CHECKPOINTS):
            raise invalid("evaluate.checkpoints", list(self.checkpoints), f"some of {', '.join(CHECKPOINTS)}")

    def require_fits(self, test_size: int, num_classes: int) -> None:
        """Raise InputError if more examples are asked for than there are, or an attack that needs more classes."""
        for named in self.attacks:
            if num_classes < named.attack.min_classes:
                raise invalid(
                    "evaluate.attacks",
                    named.name,
                    f"data of at least {named.attack.min_classes} classes; here {num_classes}",
                )
        if self.n is not None and self.n > test_size:
            raise invalid("evaluate.n", self.n, f"at most the {test_size} test examples there are, or null for all")
