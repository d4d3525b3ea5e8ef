"""What an attacker may do: stay in a norm ball around the image and in the box of images."""

import re
from dataclasses import dataclass
from fractions import Fraction

from torch import Tensor

from robust_arch.attacks.norms import NORMS, Region
from robust_arch.errors import invalid

# no more digits than a radius needs: as an exact fraction 1e999999999 has a billion
_RADIUS = re.compile(r"[+-]?[\d.]{1,40}(/\d{1,40}|e[+-]?\d{1,3})?", re.IGNORECASE | re.ASCII)


def parse_eps(value: object) -> Fraction:
    """A radius as an exact fraction; accepts 8/255, "8/255", "0.031", 0.2, 0; raises InputError below 0."""
    try:
        eps = _exact(value)
        float(eps)
    except (ValueError, OverflowError, ZeroDivisionError):
        raise invalid("threat.eps", value, "a number or a fraction like 8/255, at least 0") from None
    if eps < 0:
        raise invalid("threat.eps", value, "at least 0")
    return eps


def _exact(value: object) -> Fraction:
    if isinstance(value, Fraction):
        return value
    if isinstance(value, float):  # the fraction that was written: 8 / 255 means 8/255, 0.2 means 1/5
        simple = Fraction(value).limit_denominator(10_000)
        return simple if float(simple) == value else Fraction(str(value))
    text = str(value).replace(" ", "")
    if not _RADIUS.fullmatch(text):
        raise ValueError(text)
    return Fraction(text)


@dataclass(frozen=True, init=False)
class ThreatModel:
    """A norm and a radius, `ThreatModel("linf", "8/255")`, for images in [0, 1]; the radius is kept as a fraction."""

    norm: str
    eps_fraction: Fraction

    def __init__(self, norm: str, eps: float | str | Fraction) -> None:
        if not isinstance(norm, str) or norm not in NORMS:
            raise invalid("threat.norm", norm, f"one of {', '.join(NORMS)}")
        object.__setattr__(self, "norm", norm)
        object.__setattr__(self, "eps_fraction", parse_eps(eps))
        if norm == "linf" and self.eps_fraction > 1:
            raise invalid("threat.eps", eps, "at most 1 under linf, as images lie in [0, 1]; 8/255 is usual")

    @classmethod
    def from_text(cls, text: str) -> "ThreatModel":
        """The threat model of a text like `linf-8/255`, as in records; raises InputError for another text."""
        norm, dash, eps = text.partition("-") if isinstance(text, str) else ("", "", "")
        if not dash:
            raise invalid("threat", text, "a norm and a radius, like linf-8/255")
        return cls(norm, eps)

    @property
    def eps(self) -> float:
        """The radius as a floating-point number."""
        return float(self.eps_fraction)

    def scaled(self, factor: Fraction) -> "ThreatModel":
        """The same norm with `factor` times the radius; under linf at most the whole box."""
        if factor == 1:
            return self
        eps = self.eps_fraction * factor
        return ThreatModel(self.norm, min(eps, Fraction(1)) if self.norm == "linf" else eps)

    def __str__(self) -> str:
        """As in records: the radius is a short decimal if that is exact, else in 255ths, else the fraction."""
        eps = self.eps_fraction
        if (eps * 1000).denominator == 1:
            return f"{self.norm}-{float(eps):g}"
        return f"{self.norm}-{f'{int(eps * 255)}/255' if (eps * 255).denominator == 1 else eps}"

    def region(self, x: Tensor) -> Region:
        """The points that may be chosen around x: ball and box, exactly. x: (B, C, H, W) in [0, 1]."""
        return NORMS[self.norm].region(x, self.eps)

    def steepest(self, gradient: Tensor) -> Tensor:
        """The direction of norm 1 in which a function of this gradient rises fastest. gradient: (B, C, H, W)."""
        return NORMS[self.norm].steepest(gradient)

    def random_offset(self, keys: Tensor, shape: tuple[int, ...]) -> Tensor:
        """A point uniform in the ball around 0. keys: (B,) as of `randomness.example_keys`. Returns (B, *shape)."""
        return self.eps * NORMS[self.norm].random_offset(keys, shape)

    def distance(self, x: Tensor, x_adv: Tensor) -> Tensor:
        """The norm of each example's x_adv - x: (B,)."""
        return NORMS[self.norm].distance(x, x_adv)
