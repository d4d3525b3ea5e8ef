"""Effects as text of at most 80 columns, the answer first, and as rows for other programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from robust_arch.analysis.bounded import Bounded
from robust_arch.analysis.effects.estimates import AS_THEY_ARE, PATHS, Curve, Effects
from robust_arch.analysis.formatting import counted, in_columns

_SHOWN = 5
_OWN = {
    "MACs at equal parameters": "MACs x2, all else equal",
    "parameters at equal MACs": "parameters x2, all else equal",
    "smaller last stage at equal parameters": "last stage's share -0.1, all else equal",
}
_TOTAL = {
    "MACs at equal parameters": "MACs x2 at equal parameters",
    "parameters at equal MACs": "parameters x2 at equal MACs",
    "smaller last stage at equal parameters": "last stage's share -0.1 at equal parameters",
    AS_THEY_ARE: "parameters x2, whatever else differs",
}
_LIMITS = (
    "It is about architectures like these, trained and attacked in this way. Own effects rest on the terms in the "
    "regression: what it leaves out and what goes along with a cost counts as the cost's. A term is not a mechanism."
)


def told(found: Effects) -> str:
    """The largest effect, the tables, and what they do not say."""
    lines = [
        *_heading(found), "", *_answers(found), "",
        *_stages(found), *_costs(found), *_predictors(found), *_notes(found),
    ]  # fmt: skip
    return in_columns(lines)


def _heading(found: Effects) -> Iterator[str]:
    means = found.design.means
    yield f"{found.design.kind}; {found.design.group}."
    noise = "one run each, so the residual stands for the noise"
    if means.scatter is not None:
        noise = f"runs of one architecture scatter by {means.scatter:.2f} points"
    runs = counted(int(means.runs.sum()), "run")
    yield f"{counted(len(found.design.names), 'architecture')}, {runs}; {noise}."
    if found.design.left_out:
        yield f"Left out: {found.design.left_out}."
    if found.design.sites:
        yield found.design.sites.sentence
    terms = ", ".join(f"{name} ({shape})" for name, shape in found.shapes.items())
    products = f"; products: {', '.join(found.pairs)}" if found.pairs else ""
    yield (
        f"One regression predicts left-out architectures with {found.explained:.0f}% of the variance explained; "
        f"residual {found.scale:.2f} points. Terms: {terms or 'none'}{products}."
    )


def _answers(found: Effects) -> Iterator[str]:
    """The effects whose intervals exclude 0, the largest first, in words."""
    sure = [
        (abs(curve.change.value), f"{name} from {curve.levels[0]} to {curve.levels[-1]}: {_text(curve.change)} points")
        for name, curve in found.curves.items()
        if _excludes_zero(curve.change)
    ]
    sure += [
        (abs(path.own.value), f"{_OWN[name]}: {_text(path.own)} points")
        for name, path in found.paths.items()
        if name in _OWN and _excludes_zero(path.own)
    ]
    sure += [
        (abs(path.total.value), f"{_TOTAL[name]}: {_text(path.total)} points")
        for name, path in found.paths.items()
        if _excludes_zero(path.total)
    ]
    if not sure:
        yield "Answer: no effect of a stage or a cost is shown; every interval contains 0."
        return
    yield "Answer, effects whose 95% intervals exclude 0, the largest first:"
    yield from (f"  {text}" for _, text in sorted(sure, reverse=True)[:_SHOWN])
    if len(sure) > _SHOWN:
        yield f"  and {len(sure) - _SHOWN} more below"


def _stages(found: Effects) -> Iterator[str]:
    if found.curves:
        equal = found.design.equal
        kept = f"at equal {' and '.join(equal)}" if equal else "the others kept, so that costs move along"
        yield f"One stage changed, {kept} (points):"
        yield f"  {'':18}{'from':>6}{'to':>6}{'effect':>9}{'95% interval':>19}{'variance':>12}"
        for name, curve in found.curves.items():
            yield _row(name, curve)
    if found.variance:
        rest = [f"{name} {value.value:.0f}%" for name, value in found.variance.items() if name not in found.curves]
        yield f"  Variance over these architectures (functional ANOVA): {', '.join(rest)}."
        yield ""


def _row(name: str, curve: Curve) -> str:
    best = int(curve.levels[int(curve.values.argmax())])
    inside = best not in (curve.levels[0], curve.levels[-1])
    return (
        f"  {name:18}{curve.levels[0]:>6}{curve.levels[-1]:>6}{curve.change.value:>+9.2f}"
        f"{_bounds(curve.change):>19}{curve.variance.value:>11.0f}%{f'  *{best}' if inside else ''}"
    )


def _costs(found: Effects) -> Iterator[str]:
    if not found.paths:
        return
    yield "Costs (points):"
    for name, path in found.paths.items():
        if name in _OWN:
            yield f"  {_OWN[name]:46}{path.own.value:>+8.2f}{_bounds(path.own):>19}"
    for name, path in found.paths.items():
        yield ""
        yield f"  {_TOTAL[name]:46}{path.total.value:>+8.2f}{_bounds(path.total):>19}"
        alone = f"{PATHS[name][0]} alone"
        rest = {part: value for part, value in path.parts.items() if max(abs(value.low), abs(value.high)) >= 0.005}
        for part, value in {alone: path.own, **rest}.items():
            label = f"of that, {part}" if part == alone else f"of that, through {part}"
            yield f"    {label:44}{value.value:>+8.2f}{_bounds(value):>19}"
    yield ""


def _predictors(found: Effects) -> Iterator[str]:
    if not found.predictors:
        return
    yield "Predictors, one standard deviation more, all else equal (points):"
    for name, value in found.predictors.items():
        yield f"  {name:46}{value.value:>+8.2f}{_bounds(value):>19}"
    yield ""


def _notes(found: Effects) -> Iterator[str]:
    design = found.design
    best = [name for name, curve in found.curves.items() if curve.values.argmax() not in (0, len(curve.levels) - 1)]
    if best:
        yield "* best at this level, between the lowest and the highest"
    for name, why in design.inseparable.items():
        yield f"Not estimated: {name}, since {why}."
    for name, (residual, weight) in list(found.outliers.items())[:_SHOWN]:
        yield f"Outlier: {name} lies {residual:+.2f} points off the regression and counts with weight {weight:.2f}."
    if len(found.outliers) > _SHOWN:
        yield f"  and {len(found.outliers) - _SHOWN} more outliers."
    for each in design.means.wild[:_SHOWN]:
        yield f"Wild run, which counts little: {each}."
    yield (
        f"Intervals: {found.draws} resamples of architectures, the terms chosen again in each. Costs per doubling; "
        "the share is the last stage's part of the stages' parameters."
    )
    yield f"What this does not say: {_LIMITS}"


def _excludes_zero(value: Bounded) -> bool:
    return value.low > 0 or value.high < 0


def _bounds(value: Bounded) -> str:
    return f"[{value.low:+.2f}, {value.high:+.2f}]"


def _text(value: Bounded) -> str:
    return f"{value.value:+.2f} {_bounds(value)}"


def table(found: Effects) -> Iterator[dict[str, Any]]:
    """Every number as a row: what, part, level, value and the bounds of its interval, in points or percent."""
    for name, curve in found.curves.items():
        for level, value, low, high in zip(curve.levels, curve.values, curve.low, curve.high, strict=True):
            yield {"what": "main effect", "of": name, "at": int(level), "value": value, "low": low, "high": high}
        yield _as_row("lowest to highest level", name, curve.change)
        yield _as_row("per doubling", name, curve.per_doubling)
    for name, path in found.paths.items():
        yield _as_row(name, "in all", path.total)
        yield _as_row(name, "own", path.own)
        yield from (_as_row(name, f"through {part}", value) for part, value in path.parts.items())
    yield from (_as_row("one standard deviation more", name, value) for name, value in found.predictors.items())
    yield from (_as_row("variance in percent", name, value) for name, value in found.variance.items())


def _as_row(what: str, of: str, value: Bounded) -> dict[str, Any]:
    return {"what": what, "of": of, "at": "", "value": value.value, "low": value.low, "high": value.high}


COLUMNS = ("design", "checkpoint", "what", "of", "at", "value", "low", "high")
