"""Effects of stages and costs on robust accuracy, with intervals from resampled architectures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robust_arch.analysis.bounded import Bounded
from robust_arch.analysis.effects.design import MACS, PARAMS, SHARE, Change, Design
from robust_arch.analysis.effects.surface import SHAPES, Basis, Fit, Surface, Terms, contributions
from robust_arch.errors import InputError

DRAWS = 400
FEWEST = 12
"""Architectures; of fewer no regression on three costs can be judged."""
_PER_COST = 3  # architectures
SHARE_STEP = -0.1
"""Change of the last stage's share whose effect is reported."""
_FAR = 5.0  # scales of the residuals
_STAGES = "depths and widths"


@dataclass(frozen=True)
class Curve:
    """The main effect of one stage's depth or width: the others kept, the costs moving along.

    Attributes:
        levels: (L,), in blocks or channels.
        values: (L,) robust accuracy in points, relative to the mean over the architectures.
        low: (L,) lower bounds of its 95% interval.
        high: (L,) upper bounds.
        change: from the lowest to the highest level.
        per_doubling: the same per doubling.
        variance: percent of the variance of robust accuracy over the architectures.
    """

    levels: np.ndarray
    values: np.ndarray
    low: np.ndarray
    high: np.ndarray
    change: Bounded
    per_doubling: Bounded
    variance: Bounded


@dataclass(frozen=True)
class Path:
    """How much one cost moves robust accuracy at another equal cost, and which way.

    Attributes:
        total: of architectures as they are, whatever else differs between them.
        own: of the cost itself, with everything else in the regression equal.
        parts: what else differs to its part of the total; `own` and the parts add up to the total.
    """

    total: Bounded
    own: Bounded
    parts: Mapping[str, Bounded]


@dataclass(frozen=True)
class Effects:
    """The effects in one design.

    Attributes:
        design: the architectures.
        shapes: variable of the regression to linear, quadratic or spline.
        pairs: products in the regression.
        explained: percent of the variance that predictions of left-out architectures explain.
        scale: standard deviation of the residuals in points, robust.
        curves: stage variable to its main effect.
        paths: "MACs at equal parameters", "parameters at equal MACs" and "parameters, whatever else differs" (per
            doubling), and "smaller last stage at equal parameters" (per 0.1 of its share).
        variance: percent of the variance: each stage variable, their interactions (or the costs together where there
            are no stages), and the residual.
        outliers: architectures far from the regression, with residual in points and weight.
        predictors: name to the effect of one standard deviation more, in points, all else equal.
        draws: number of resamples.
    """

    design: Design
    shapes: Mapping[str, str]
    pairs: Sequence[str]
    explained: float
    scale: float
    curves: Mapping[str, Curve]
    paths: Mapping[str, Path]
    variance: Mapping[str, Bounded]
    outliers: Mapping[str, tuple[float, float]]
    predictors: Mapping[str, Bounded]
    draws: int


AS_THEY_ARE = "parameters, whatever else differs"
PATHS: Mapping[str, tuple[str, str | None, float]] = {
    "MACs at equal parameters": (MACS, PARAMS, 1.0),
    "parameters at equal MACs": (PARAMS, MACS, 1.0),
    "smaller last stage at equal parameters": (SHARE, PARAMS, SHARE_STEP),
    AS_THEY_ARE: (PARAMS, None, 1.0),
}
"""Name to the cost that changes, the cost that is equal (or none), and the change."""


def estimate_effects(design: Design, draws: int = DRAWS, seed: int = 0) -> Effects:
    """Fit one regression and resample architectures; the terms are chosen again in each resample.

    Args:
        design: the architectures.
        draws: number of resamples.
        seed: of the resamples.

    Raises:
        InputError: for fewer than 12 architectures, or costs that do not vary.
    """
    count = len(design.names)
    if count < FEWEST:
        raise InputError(
            f"effects: {count} architectures of {design.kind} with known costs: expected at least {FEWEST}"
        )
    stages = [place for place, name in enumerate(design.variables) if name in design.levels]
    unused = [place for place, name in enumerate(design.variables) if name in (PARAMS, MACS, SHARE)]
    unused = [place for place in unused if design.variables[place] not in design.costs]
    unused += [design.variables.index(name) for name in design.priced]
    # products of costs, which go together, would have no meaning
    surface = Surface(design.x, design.y, crossed=stages, unused=unused)
    start = _start(design)
    weights, _ = surface.robust_weights(start)
    chosen = surface.choose(start, weights)
    weights, scale = surface.robust_weights(chosen.terms)
    chosen = surface.choose(start, weights)
    weights, scale = surface.robust_weights(chosen.terms)
    chosen = surface.fit(chosen.terms, weights)
    point = _numbers(design, surface, chosen, weights)
    generator = np.random.default_rng(seed)
    resampled = []
    for _ in range(draws):
        copies = np.bincount(generator.integers(count, size=count), minlength=count)
        own = weights * copies
        resampled.append(_numbers(design, surface, surface.choose(start, own), own))
    inflate = float(np.sqrt(count / max(count - chosen.terms.parameters, 1)))
    intervals = {
        key: _interval(value, np.array([draw[key] for draw in resampled if key in draw]), inflate)
        for key, value in point.items()
    }
    return _effects(design, chosen, weights, scale, intervals, draws)


def _start(design: Design) -> Terms:
    """Costs that vary at equal other ones and predictors have terms: their effects at equal others are asked for."""
    room = len(design.names) // _PER_COST - 1
    used = (*design.costs, *design.predictors)[:room]
    return Terms(tuple(int(name in used) for name in design.variables))


Key = tuple[str, ...]


def _numbers(design: Design, surface: Surface, fit: Fit, weights: np.ndarray) -> dict[Key, float]:
    """Every number of the report, by what it is."""
    found: dict[Key, float] = {}
    alone = (PARAMS, MACS, SHARE, *design.predictors)
    ways = {name: name if name in alone else _STAGES for name in design.variables}
    parts = contributions(surface, fit, [ways[name] for name in design.variables])
    for name, (moved, kept, step) in PATHS.items():
        if moved in design.costs and (kept is None or kept in design.costs or kept in design.equal):
            found |= {(name, part): step * value for part, value in _path(design, parts, weights, moved, kept).items()}
    for name in design.levels:
        variable = design.variables.index(name)
        own = fit
        if not fit.terms.shapes[variable]:
            own = surface.fit(fit.terms.at_least(variable), weights)
        curve = _curve(design, surface, own, weights, variable)
        found |= {("curve", name, str(level)): float(value) for level, value in enumerate(curve)}
        found["change", name] = float(curve[-1] - curve[0])
    for name in design.predictors:
        own = surface.fit(fit.terms.at_least(design.variables.index(name)), weights)
        part = contributions(surface, own, design.variables)[name]
        found["predictor", name] = _path(design, {name: part}, weights, name, None)["own"]
    return found | _variance(design, surface, fit, weights)


def _path(
    design: Design, parts: Mapping[str, np.ndarray], weights: np.ndarray, moved: str, kept: str | None
) -> dict[str, float]:
    """The slope of each part of the surface on one cost at equal other cost; they add up to the slope of the whole."""
    held = []
    if kept is not None and kept not in design.equal:
        equal = design.x[:, design.variables.index(kept)]
        equal = equal - np.average(equal, weights=weights)
        held = [equal, equal**2]
    matrix = np.column_stack([np.ones(len(weights)), *held, design.x[:, design.variables.index(moved)]])
    root = np.sqrt(weights)[:, None]
    values = np.column_stack(list(parts.values()))
    slopes = np.linalg.lstsq(matrix * root, values * root, rcond=None)[0][-1]
    found = dict(zip(parts, map(float, slopes), strict=True))
    own = found.pop(moved, 0.0)
    return {"total": own + sum(found.values()), "own": own, **found}


def _curve(design: Design, surface: Surface, fit: Fit, weights: np.ndarray, variable: int) -> np.ndarray:
    """Accumulated local effects (Apley and Zhu 2020): differences between neighbouring levels, summed.

    No architecture is moved further than to the next level, so that nothing is said about networks unlike those that
    were trained.
    """
    name = design.variables[variable]
    steps = np.zeros(len(design.levels[name]) - 1)
    for change in design.changes:
        if change.variable == variable:
            steps[change.step] = _mean_change(change, surface, fit, weights)
    curve = np.concatenate([[0.0], np.cumsum(steps)])
    own = np.interp(design.x[:, variable], np.log2(design.levels[name]), curve)
    return np.asarray(curve - np.average(own, weights=weights))


def _mean_change(change: Change, surface: Surface, fit: Fit, weights: np.ndarray) -> float:
    own = weights[change.members]
    if not own.sum():
        return 0.0
    return float(own @ (surface.predict(change.high, fit) - surface.predict(change.low, fit)) / own.sum())


def _variance(design: Design, surface: Surface, fit: Fit, weights: np.ndarray) -> dict[Key, float]:
    """Percent of the variance: functional ANOVA of the surface over the architectures that were trained.

    The surface is projected onto sums of functions of one variable each; a variable's part is the covariance of its
    function with the surface (Li et al. 2010), which for independent variables is the variance of its main effect.
    What the projection leaves are interactions; the rest of the variance of y is the residual.
    """
    names = list(design.levels)
    surfaced = surface.matrix(fit.terms) @ fit.coefficients
    whole = max(_covariance(surface.y, surface.y, weights), 1e-12)
    if not names:
        together = 100 * _covariance(surfaced, surface.y, weights) / whole
        return {("variance", "costs"): together, ("variance", "residual"): 100 - together}
    blocks = [_block(surface.x[:, design.variables.index(name)]) for name in names]
    matrix = np.column_stack([np.ones(len(surfaced)), *blocks])
    root = np.sqrt(weights)
    coefficients = np.linalg.lstsq(matrix * root[:, None], surfaced * root, rcond=1e-8)[0]
    found: dict[Key, float] = {}
    start, projected = 1, np.full(len(surfaced), coefficients[0])
    for name, block in zip(names, blocks, strict=True):
        own = block @ coefficients[start : start + block.shape[1]]
        found["variance", name] = 100 * _covariance(own, surfaced, weights) / whole
        start, projected = start + block.shape[1], projected + own
    found["variance", "interactions"] = 100 * _covariance(surfaced - projected, surfaced, weights) / whole
    found["variance", "residual"] = 100 * _covariance(fit.residuals, surface.y, weights) / whole
    return found


def _block(values: np.ndarray) -> np.ndarray:
    """A variable's levels as columns; of many a spline."""
    levels = np.unique(values)
    if len(levels) <= 6:
        return np.asarray(values[:, None] == levels[1:], dtype=float)
    basis = Basis(values[:, None])
    return basis.columns(values[:, None], Terms((basis.highest[0],)))[0][:, 1:]


def _covariance(first: np.ndarray, second: np.ndarray, weights: np.ndarray) -> float:
    total = weights.sum()
    return float(weights @ ((first - weights @ first / total) * (second - weights @ second / total)) / total)


def _interval(value: float, drawn: np.ndarray, inflate: float) -> Bounded:
    """Percentiles, widened for the parameters that the residuals have lost."""
    if not len(drawn):
        return Bounded(value, value, value)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Bounded(
        value, min(value, value + (float(low) - value) * inflate), max(value, value + (float(high) - value) * inflate)
    )


def _effects(
    design: Design,
    fit: Fit,
    weights: np.ndarray,
    scale: float,
    numbers: Mapping[Key, Bounded],
    draws: int,
) -> Effects:
    spread = _covariance(design.y, design.y, weights)
    explained = 100 * (1 - float(weights @ fit.left_out**2 / weights.sum()) / spread) if spread > 0 else 0.0
    far = np.flatnonzero(np.abs(fit.residuals) > _FAR * scale)
    paths = {}
    for name in PATHS:
        own = {key[1]: value for key, value in numbers.items() if key[0] == name}
        if own:
            paths[name] = Path(own.pop("total"), own.pop("own"), own)
    return Effects(
        design=design,
        shapes={name: SHAPES[shape] for name, shape in zip(design.variables, fit.terms.shapes, strict=True) if shape},
        pairs=[f"{design.variables[one]} x {design.variables[two]}" for one, two in sorted(fit.terms.pairs)],
        explained=explained,
        scale=scale,
        curves={name: _as_curve(design, name, numbers) for name in design.levels if name not in design.inseparable},
        paths=paths,
        variance={key[1]: value for key, value in numbers.items() if key[0] == "variance"},
        outliers={design.names[each]: (float(fit.residuals[each]), float(weights[each])) for each in far},
        predictors={key[1]: value for key, value in numbers.items() if key[0] == "predictor"},
        draws=draws,
    )


def _as_curve(design: Design, name: str, numbers: Mapping[Key, Bounded]) -> Curve:
    levels = design.levels[name]
    points = [numbers["curve", name, str(level)] for level in range(len(levels))]
    change, doublings = numbers["change", name], float(np.log2(levels[-1] / levels[0]))
    return Curve(
        levels=levels,
        values=np.array([point.value for point in points]),
        low=np.array([point.low for point in points]),
        high=np.array([point.high for point in points]),
        change=change,
        per_doubling=Bounded(change.value / doublings, change.low / doublings, change.high / doublings),
        variance=numbers["variance", name],
    )
