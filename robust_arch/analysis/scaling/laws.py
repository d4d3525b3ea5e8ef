"""Forms of scaling laws, and their robust fit to the logarithm of the error.

With u = A / N^a + B / D^b, N the size and D the training images seen:

- power: error = u, without a plateau;
- plateau: error = E + u (Hoffmann et al. 2022, equation 2);
- saturating: error = (E + u) / (1 + u), which rises to 1 for small networks and little training instead of without
  bound; it is the form M4 of Alabdulmohsin et al. (2022) with exponent 1 and an upper limit of 1.

A term of which nothing varies in the data is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from robust_arch.analysis.robust_means import HUBER

FORMS = ("power", "plateau", "saturating")
LEAST_DELTA = 1e-3
"""The smallest Huber threshold on the log error: that of Hoffmann et al. (2022)."""
_EXPONENTS = (0.1, 0.3, 0.6, 1.2)
_FLOORS = (0.1, 0.5, 0.9)  # of the smallest error, where the search for the plateau starts
_MIDDLE = (0.3,)
_STARTS = 4
_LOWEST, _HIGHEST = -14.0, 14.0  # of the logarithm of a factor, at the middle of the data
_STEEPEST = 4.0
_TINY = 1e-9


@dataclass(frozen=True)
class Law:
    """A fitted law.

    Attributes:
        form: one of FORMS.
        floor: E, the error that is left for an infinite network and infinite training; 0 for `power`.
        size_factor: A at the middle of the data, the error that the size adds there; None without that term.
        size_exponent: a.
        images_factor: B at the middle of the data; None without that term.
        images_exponent: b.
        middle: geometric means of size and images seen.
        delta: Huber's threshold on the log error.
        loss: the mean Huber loss.
    """

    form: str
    floor: float
    size_factor: float | None
    size_exponent: float | None
    images_factor: float | None
    images_exponent: float | None
    middle: tuple[float, float]
    delta: float = LEAST_DELTA
    loss: float = 0.0

    def log_error(self, size: np.ndarray, images: np.ndarray) -> np.ndarray:
        """Logarithm of the predicted error."""
        above = np.zeros(np.broadcast(size, images).shape)
        if self.size_factor is not None and self.size_exponent is not None:
            above = above + self.size_factor * (size / self.middle[0]) ** -self.size_exponent
        if self.images_factor is not None and self.images_exponent is not None:
            above = above + self.images_factor * (images / self.middle[1]) ** -self.images_exponent
        raised = np.log(np.maximum(self.floor + above, 1e-300))
        return np.asarray(raised - np.log1p(above) if self.form == "saturating" else raised)

    def error(self, size: np.ndarray, images: np.ndarray) -> np.ndarray:
        """The predicted error, in (0, 1]."""
        return np.asarray(np.exp(self.log_error(size, images)))

    @property
    def constants(self) -> dict[str, float]:
        """E, A, a, B and b as in the formula, for sizes and images in units of one."""
        found = {} if self.form == "power" else {"E": self.floor}
        if self.size_factor is not None and self.size_exponent is not None:
            found |= {"A": self.size_factor * self.middle[0] ** self.size_exponent, "a": self.size_exponent}
        if self.images_factor is not None and self.images_exponent is not None:
            found |= {"B": self.images_factor * self.middle[1] ** self.images_exponent, "b": self.images_exponent}
        return found


class _Problem:
    """The residuals of one form on data, as a function of (log E,) log A, a, log B, b."""

    def __init__(self, form: str, size: np.ndarray, images: np.ndarray, error: np.ndarray) -> None:
        self.form, self.target = form, np.log(error)
        self.middle = (float(np.exp(np.mean(np.log(size)))), float(np.exp(np.mean(np.log(images)))))
        logs = [np.log(size / self.middle[0]), np.log(images / self.middle[1])]
        self.terms = [place for place, log in enumerate(logs) if np.ptp(log) > _TINY]
        self.logs = [logs[place] for place in self.terms]
        self.has_floor = form != "power"

    @property
    def bounds(self) -> tuple[list[float], list[float]]:
        low, high = ([_LOWEST], [-_TINY]) if self.has_floor else ([], [])
        return low + [_LOWEST, 0.0] * len(self.terms), high + [_HIGHEST, _STEEPEST] * len(self.terms)

    def residuals(self, theta: np.ndarray) -> np.ndarray:
        raised, above, _ = self._parts(theta)
        predicted = np.log(raised) - (np.log1p(above) if self.form == "saturating" else 0.0)
        return np.asarray(predicted - self.target)

    def jacobian(self, theta: np.ndarray) -> np.ndarray:
        raised, above, parts = self._parts(theta)
        slope = 1 / raised - (1 / (1 + above) if self.form == "saturating" else 0.0)
        columns = [np.exp(theta[0]) / raised] if self.has_floor else []
        for part, log in zip(parts, self.logs, strict=True):
            columns += [part * slope, -log * part * slope]
        return np.column_stack(columns)

    def _parts(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        own = theta[self.has_floor :].reshape(-1, 2)
        pairs = zip(own, self.logs, strict=True)
        parts = [np.exp(np.clip(factor - exponent * log, -60, 60)) for (factor, exponent), log in pairs]
        above = np.sum(parts, axis=0)
        floor = np.exp(theta[0]) if self.has_floor else 0.0
        return np.maximum(floor + above, 1e-300), above, parts

    def starts(self, exponents: Sequence[float] = _EXPONENTS) -> list[np.ndarray]:
        """A grid of plateaus and exponents, the best first, the factors by non-negative least squares on the error."""
        from scipy.optimize import nnls

        error = np.exp(self.target)
        found: list[tuple[float, np.ndarray]] = []
        for floor in _FLOORS if self.has_floor else (0.0,):
            level = floor * float(error.min())
            above = np.maximum(error - level, 1e-6)
            if self.form == "saturating":
                above = above / np.maximum(1 - error, 1e-3)
            for own in product(exponents, repeat=len(self.terms)):
                columns = np.column_stack([np.exp(-e * log) for e, log in zip(own, self.logs, strict=True)])
                factors = np.maximum(nnls(columns, above)[0], 1e-4)
                pairs = [value for pair in zip(np.log(factors), own, strict=True) for value in pair]
                theta = np.array([*([np.log(max(level, 1e-5))] if self.has_floor else []), *pairs])
                theta = np.clip(theta, *map(np.array, self.bounds))
                found.append((float(np.sum(np.abs(self.residuals(theta)))), theta))
        return [theta for _, theta in sorted(found, key=lambda each: each[0])]

    def solve(self, starts: list[np.ndarray], delta: float) -> tuple[np.ndarray, float]:
        from scipy.optimize import least_squares

        low, high = map(np.array, self.bounds)
        best: Any = None
        for theta in starts:
            inside = np.clip(theta, low + 1e-6, high - 1e-6)
            found = least_squares(
                self.residuals, inside, self.jacobian, (low, high), loss="huber", f_scale=delta, x_scale="jac",
                max_nfev=100,
            )  # fmt: skip
            if best is None or found.cost < best.cost:
                best = found
        return best.x, float(best.cost) / len(self.target)

    def theta(self, law: Law) -> np.ndarray:
        """The parameters of a law, moved to the middle of these data."""
        own = [np.log(max(law.floor, 1e-6))] if self.has_floor else []
        values = ((law.size_factor, law.size_exponent), (law.images_factor, law.images_exponent))
        for place in self.terms:
            factor, exponent = values[place]
            shift = np.log(self.middle[place] / law.middle[place])
            own += [np.log(max(factor or 1e-4, 1e-6)) - (exponent or 0.1) * shift, exponent or 0.1]
        return np.array(own)

    def law(self, theta: np.ndarray, delta: float, loss: float) -> Law:
        own: list[tuple[float | None, float | None]] = [(None, None), (None, None)]
        for position, place in enumerate(self.terms):
            start = int(self.has_floor) + 2 * position
            own[place] = float(np.exp(theta[start])), float(theta[start + 1])
        floor = float(np.exp(theta[0])) if self.has_floor else 0.0
        return Law(self.form, floor, *own[0], *own[1], self.middle, delta, loss)


def parameters(form: str, varies: tuple[bool, bool]) -> int:
    """Number of constants of a form."""
    return int(form != "power") + 2 * sum(varies)


def fit_law(form: str, size: np.ndarray, images: np.ndarray, error: np.ndarray, *, near: Law | None = None) -> Law:
    """Fit one form by Huber's loss on the log error, from several starts (Hoffmann et al. 2022, approach 3).

    Huber's threshold is 1.345 standard deviations of the residuals, robustly estimated, and at least 1e-3, so that
    most residuals count by their squares and a wild run by its size.

    Args:
        form: one of FORMS.
        size: (R,) parameters or multiply-accumulates.
        images: (R,) training images seen.
        error: (R,) in (0, 1].
        near: a law of the same form and of data like these, whose threshold is used, and whose constants are a start
            beside one of the grid.

    Raises:
        ValueError: where neither sizes nor images differ.
    """
    problem = _Problem(form, size, images, error)
    if not problem.terms:
        raise ValueError("neither sizes nor images seen differ")
    if near is not None:
        # one of the grid too: where the data hardly tell the plateau, the law's own is one of many
        theta, loss = problem.solve([problem.theta(near), problem.starts(_MIDDLE)[0]], near.delta)
        return problem.law(theta, near.delta, loss)
    starts = problem.starts()[:_STARTS]
    delta = max(HUBER * _scale(problem.residuals(starts[0]), theta_count=len(starts[0])), LEAST_DELTA)
    theta, loss = problem.solve(starts, delta)
    for _ in range(3):
        delta = max(HUBER * _scale(problem.residuals(theta), theta_count=len(theta)), LEAST_DELTA)
        theta, loss = problem.solve([theta], delta)
    return problem.law(theta, delta, loss)


def _scale(residuals: np.ndarray, theta_count: int) -> float:
    """Standard deviation of the residuals from their median size."""
    freedom = max(len(residuals) - theta_count, 1)
    return 1.4826 * float(np.median(np.abs(residuals))) * float(np.sqrt(len(residuals) / freedom))


def optimum(law: Law, compute: float) -> tuple[float, float] | None:
    """Size and images with the least error at size x images = compute (Hoffmann et al. 2022, equation 4).

    None for a law without both terms, or one whose optimum is at no finite size.
    """
    factors = (law.size_factor, law.size_exponent, law.images_factor, law.images_exponent)
    if any(each is None or each <= _TINY for each in factors):
        return None
    own = law.constants
    total = own["a"] + own["b"]
    ratio = (own["a"] * own["A"] / (own["b"] * own["B"])) ** (1 / total)
    size = ratio * compute ** (own["b"] / total)
    return float(size), float(compute / size)
