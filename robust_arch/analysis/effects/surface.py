"""Robust accuracy as a sum of smooth terms, chosen by leaving out one architecture at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from robust_arch.analysis.robust_means import HUBER

LINEAR, QUADRATIC, SPLINE = 1, 2, 3
SHAPES = {LINEAR: "linear", QUADRATIC: "quadratic", SPLINE: "spline"}
_KNOTS = (0.05, 0.35, 0.65, 0.95)
"""Quantiles at which the pieces of a natural cubic spline meet (Harrell 2015, table 2.3)."""
_PER_PARAMETER = 3  # architectures
_ROUNDS = 30
_LEAST_SCALE = 1e-3  # points


@dataclass(frozen=True)
class Terms:
    """Which terms a surface has.

    Attributes:
        shapes: per variable 0 (none), LINEAR, QUADRATIC or SPLINE.
        pairs: products of two variables, which then have terms of their own.
    """

    shapes: tuple[int, ...]
    pairs: frozenset[tuple[int, int]] = frozenset()

    @property
    def parameters(self) -> int:
        """With the constant."""
        return 1 + sum(self.shapes) + len(self.pairs)

    def at_least(self, variable: int, shape: int = LINEAR) -> Terms:
        """The same with a term of that variable."""
        shapes = list(self.shapes)
        shapes[variable] = max(shapes[variable], shape)
        return replace(self, shapes=tuple(shapes))


class Basis:
    """Columns of a regression on (A, V) variables; knots and scales are those of the architectures at hand."""

    def __init__(self, x: np.ndarray) -> None:
        self.centre, self.scale = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-12)
        z = self._scaled(x)
        self.knots = np.quantile(z, _KNOTS, axis=0)
        self.middle = np.mean(z**2, axis=0)
        distinct = [len(np.unique(np.round(column, 9))) for column in z.T]
        self.highest = [min(SPLINE, max(0, number - 1)) if number < 5 else SPLINE for number in distinct]
        for variable, number in enumerate(distinct):
            if number < 5 or len(np.unique(self.knots[:, variable])) < len(_KNOTS):
                self.highest[variable] = min(self.highest[variable], QUADRATIC)

    def _scaled(self, x: np.ndarray) -> np.ndarray:
        return np.asarray((x - self.centre) / self.scale)

    def columns(self, x: np.ndarray, terms: Terms) -> tuple[np.ndarray, list[int | tuple[int, int] | None]]:
        """(n, P) with the constant first, and what each column belongs to: None, a variable, or a pair."""
        z = self._scaled(x)
        found: list[np.ndarray] = [np.ones(len(z))]
        owners: list[int | tuple[int, int] | None] = [None]
        for variable, shape in enumerate(terms.shapes):
            own = self._shaped(z[:, variable], variable, shape)
            found += own
            owners += [variable] * len(own)
        for pair in sorted(terms.pairs):
            found.append(z[:, pair[0]] * z[:, pair[1]])
            owners.append(pair)
        return np.column_stack(found), owners

    def _shaped(self, z: np.ndarray, variable: int, shape: int) -> list[np.ndarray]:
        if shape == 0:
            return []
        if shape == LINEAR:
            return [z]
        if shape == QUADRATIC:
            return [z, z**2 - self.middle[variable]]
        knots = self.knots[:, variable]
        last, before = knots[-1], knots[-2]
        cubes = [np.maximum(z - knot, 0) ** 3 for knot in knots]
        size = (last - knots[0]) ** 2
        pieces = [
            (
                cubes[place]
                - cubes[-2] * (last - knots[place]) / (last - before)
                + cubes[-1] * (before - knots[place]) / (last - before)
            )
            / size
            for place in range(len(knots) - 2)
        ]
        return [z, *pieces]


@dataclass(frozen=True)
class Fit:
    """A weighted least-squares fit.

    Attributes:
        terms: of the surface.
        coefficients: (P,).
        left_out: (A,) errors in points of predictions without the architecture.
        residuals: (A,) in points.
    """

    terms: Terms
    coefficients: np.ndarray
    left_out: np.ndarray
    residuals: np.ndarray


class Surface:
    """The regression of y (A,) on x (A, V), under weights of the architectures.

    Args:
        x: (A, V) variables.
        y: (A,) in points.
        crossed: variables that may have products.
        unused: variables that have no terms.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, crossed: Sequence[int] = (), unused: Sequence[int] = ()) -> None:
        self.x, self.y, self.crossed = x, y, crossed
        self.basis = Basis(x)
        for variable in unused:
            self.basis.highest[variable] = 0
        self._columns: dict[Terms, np.ndarray] = {}

    def matrix(self, terms: Terms) -> np.ndarray:
        """(A, P)."""
        if terms not in self._columns:
            self._columns[terms] = self.basis.columns(self.x, terms)[0]
        return self._columns[terms]

    def fit(self, terms: Terms, weights: np.ndarray) -> Fit:
        """Least squares; a copy of an architecture is a weight, so that all copies are left out together."""
        matrix = self.matrix(terms)
        weighted = matrix * weights[:, None]
        gram = weighted.T @ matrix
        gram[np.diag_indices_from(gram)] *= 1 + 1e-9
        gram[np.diag_indices_from(gram)] += 1e-9
        inverse = np.linalg.inv(gram)
        coefficients = inverse @ (weighted.T @ self.y)
        residuals = self.y - matrix @ coefficients
        leverage = np.einsum("ap,ap->a", weighted @ inverse, matrix)
        return Fit(terms, coefficients, residuals / np.maximum(1 - leverage, 0.02), residuals)

    def choose(self, start: Terms, weights: np.ndarray) -> Fit:
        """The terms that predict architectures which were left out, beyond those of `start`.

        A term is added where the error of prediction falls by more than its standard error, and taken away where the
        error does not rise by more.
        """
        current, seen = self.fit(start, weights), {start}
        while True:
            better = self._step(current, self._larger(current.terms), weights, grows=True)
            if better is None or better.terms in seen:
                better = self._step(current, self._smaller(current.terms, start), weights, grows=False)
            if better is None or better.terms in seen:
                return current
            current = better
            seen.add(current.terms)

    def _step(self, current: Fit, candidates: Iterator[Terms], weights: np.ndarray, *, grows: bool) -> Fit | None:
        best, best_fall = None, -np.inf
        total = float(weights.sum())
        for terms in candidates:
            fit = self.fit(terms, weights)
            falls = current.left_out**2 - fit.left_out**2
            mean = float(weights @ falls) / total
            error = float(np.sqrt(weights @ (falls - mean) ** 2)) / total
            accepted = mean > error if grows else -mean <= error
            if accepted and mean > best_fall:
                best, best_fall = fit, mean
        return best

    def _larger(self, terms: Terms) -> Iterator[Terms]:
        room = len(self.y) // _PER_PARAMETER
        for variable, shape in enumerate(terms.shapes):
            for further in range(shape + 1, self.basis.highest[variable] + 1):
                if terms.parameters + further - shape <= room:
                    yield terms.at_least(variable, further)
        for pair in combinations(self.crossed, 2):
            larger = terms.at_least(pair[0]).at_least(pair[1])
            larger = replace(larger, pairs=larger.pairs | {pair})
            if pair not in terms.pairs and larger.parameters <= room:
                yield larger

    def _smaller(self, terms: Terms, start: Terms) -> Iterator[Terms]:
        for pair in terms.pairs:
            yield replace(terms, pairs=terms.pairs - {pair})
        in_pairs = {variable for pair in terms.pairs for variable in pair}
        for variable, shape in enumerate(terms.shapes):
            least = max(start.shapes[variable], LINEAR if variable in in_pairs else 0)
            if shape > least:
                shapes = list(terms.shapes)
                shapes[variable] -= 1
                yield replace(terms, shapes=tuple(shapes))

    def predict(self, x: np.ndarray, fit: Fit) -> np.ndarray:
        """(n,) in points."""
        return np.asarray(self.basis.columns(x, fit.terms)[0] @ fit.coefficients)

    def robust_weights(self, terms: Terms) -> tuple[np.ndarray, float]:
        """(A,) Huber's weights of a fit with these terms, at most 1, and the scale of its residuals in points."""
        weights = np.ones(len(self.y))
        scale = 0.0
        freedom = np.sqrt(len(self.y) / max(len(self.y) - terms.parameters, 1))
        for _ in range(_ROUNDS):
            residuals = self.fit(terms, weights).residuals
            scale = max(1.4826 * float(np.median(np.abs(residuals))) * float(freedom), _LEAST_SCALE)
            weights = np.minimum(1.0, HUBER * scale / np.maximum(np.abs(residuals), 1e-12))
        return weights, scale


def contributions(surface: Surface, fit: Fit, owners_to: Sequence[str]) -> dict[str, np.ndarray]:
    """What each part of a surface adds to each architecture, in points; owners_to: the part of each variable."""
    matrix, owners = surface.basis.columns(surface.x, fit.terms)
    found: dict[str, np.ndarray] = {}
    for column, owner, coefficient in zip(matrix.T, owners, fit.coefficients, strict=True):
        if owner is None:
            continue
        part = owners_to[owner] if isinstance(owner, int) else "products of variables"
        found[part] = found.get(part, np.zeros(len(matrix))) + coefficient * column
    return found
