"""What an evaluation computes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from robust_arch.attacks import Attack
from robust_arch.errors import invalid, require_flag, require_integer

CHECKPOINTS = ("best", "last")


@dataclass(frozen=True)
class NamedAttack:
    """An attack with its name in the results and the settings that determine its numbers."""

    name: str
    attack: Attack
    settings: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """What to evaluate, and how.

    Attributes:
        attacks: each on every example, in order.
        cascade: attacks each of which sees only the survivors of those before it.
        n: test examples, class-stratified by a fixed seed; None for all.
        save_images: keep attacked images.
        diagnostics: examples for the gradient-masking diagnostics; None for no diagnostics.
        smoothness: examples for the stages' smoothness; None for none.
        batch_size: images per batch.
        seed: of the attacks.
        checkpoints: best, last or both.
        weights: raw, ema or swa, some of those that a checkpoint holds; None for all.
    """

    attacks: tuple[NamedAttack, ...]
    cascade: tuple[NamedAttack, ...] = ()
    n: int | None = None
    save_images: bool = False
    diagnostics: int | None = None
    smoothness: int | None = None
    batch_size: int = 250
    seed: int = 0
    checkpoints: tuple[str, ...] = field(default=CHECKPOINTS)
    weights: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for key in ("n", "batch_size", "diagnostics", "smoothness"):
            require_integer(f"evaluate.{key}", getattr(self, key), 1, optional=key != "batch_size")
        require_flag("evaluate.save_images", self.save_images)
        if len(self.cascade) == 1:
            raise invalid("evaluate.cascade", [self.cascade[0].name], "at least two attacks, or an empty list")
        if not self.checkpoints or not set(self.checkpoints) <= set(CHECKPOINTS):
            raise invalid("evaluate.checkpoints", list(self.checkpoints), f"some of {', '.join(CHECKPOINTS)}")

    @property
    def cascade_name(self) -> str:
        """What the cascade is called in the results: its attacks in order."""
        return "-".join(["cascade", *(named.name for named in self.cascade)])

    def chosen_weights(self, held: tuple[str, ...]) -> tuple[str, ...]:
        """The weights to evaluate of a run whose checkpoints hold `held`; raises InputError for any others."""
        chosen = held if self.weights is None else self.weights
        if not chosen or not set(chosen) <= set(held):
            raise invalid("evaluate.weights", list(chosen), f"some of {', '.join(held)}, which this run has, or null")
        return chosen

    def require_fits(self, test_size: int, num_classes: int, eps: float) -> None:
        """Raise InputError for more examples than there are, or what these classes or this radius do not allow."""
        for key in ("attacks", "cascade"):
            for named in getattr(self, key):
                if num_classes < (least := named.attack.min_classes):
                    allowed = f"data of at least {least} classes; here {num_classes}"
                    raise invalid(f"evaluate.{key}", named.name, allowed)
        if self.diagnostics and eps == 0:
            raise invalid("evaluate.diagnostics", self.diagnostics, "null where threat.eps is 0")
        if self.n is not None and self.n > test_size:
            raise invalid("evaluate.n", self.n, f"at most the {test_size} test examples, or null for all")
