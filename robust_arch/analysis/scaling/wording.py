"""Scaling laws as text of at most 80 columns, the answer first, and as rows for other programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from robust_arch.analysis.bounded import Bounded
from robust_arch.analysis.formatting import counted, decimal_prefix, in_columns
from robust_arch.analysis.scaling.estimates import FURTHER, Scaling
from robust_arch.analysis.scaling.laws import FORMS
from robust_arch.analysis.scaling.prediction import Prediction

_SHOWN = 5
_LEAST_SLOPE = 1e-3  # exponents are not negative, so 0 is never below an interval
_RESOURCE = {"params": "parameters", "macs": "multiply-accumulates per image"}
_FORMULA = {
    "power": "{u}",
    "plateau": "E + {u}",
    "saturating": "(E + u) / (1 + u), u = {u}",
}
_LIMITS = (
    "It describes networks like these, trained and attacked in this way, and the intervals hold if the form is right: "
    "outside the sizes and images seen, forms that fit equally well here differ. Networks of one size that differ in "
    "shape count as noise."
)


def told(found: Scaling, prediction: Prediction | None = None) -> str:
    """The answer, the prediction, the forms, the frontier, and what they do not say."""
    lines = [*_heading(found), "", *_answer(found), ""]
    if prediction is not None:
        lines += [*_predicted(found, prediction), ""]
    lines += [*_forms(found), "", *_frontier(found), *_notes(found)]
    return in_columns(lines)


def _heading(found: Scaling) -> Iterator[str]:
    points = found.points
    yield f"{points.title}."
    sizes, images = np.unique(points.size), np.unique(points.images)
    size = f"{_short(sizes[0])} to {_short(sizes[-1])}" if len(sizes) > 1 else _short(sizes[0])
    yield (
        f"{counted(len(points.error), 'run')} of {counted(len(np.unique(points.member)), 'architecture')}; N = "
        f"{_RESOURCE[points.resource]}, {size}."
    )
    unit = "training images seen" if points.per_epoch else "epochs (the training images per epoch are not known)"
    if len(images) > 1:
        yield f"D = {unit}, {_short(images[0])} to {_short(images[-1])}."
    else:
        yield "Every run saw as many training images, so there is no term in D."
    if points.per_epoch and len(images) > 1:
        counts = f"{points.per_epoch[0]:,}"
        if len(points.per_epoch) > 1:
            counts += f" to {points.per_epoch[-1]:,}"
        yield f"An epoch is taken to be {counts} training images."
    if points.sites:
        yield points.sites.sentence
    if points.left_out:
        yield f"Left out: {', '.join(points.left_out)}."


def _answer(found: Scaling) -> Iterator[str]:
    if found.rises:
        yield (
            "Warning: the error rises with the size (Kendall's tau over architectures, at 2.5%), which none of these "
            "forms can express. Their predictions are no extrapolation of these runs."
        )
    if found.alike:
        others = ", ".join([found.best, *found.alike])
        yield (
            f"Answer: these runs cannot tell these forms apart: {others} (cross-validation over "
            "architectures, t test at 2.5%)."
        )
    else:
        yield f"Answer: the form {found.best} predicts left-out architectures best (t test at 2.5%)."
    plateau = found.laws["plateau"].constants["E"]
    shown = _percent(plateau)
    if found.plateau_shown:
        yield f"A plateau is shown: robust error of {shown} would be left (form plateau)."
    else:
        yield f"A plateau is not shown: the form without one predicts as well. With one it would be {shown}."
    for name, what in (("a", "network's size"), ("b", "images seen")):
        slope = found.laws["power"].constants.get(name)
        if slope is not None and slope.low < _LEAST_SLOPE:
            yield f"A fall of the error with the {what} is not shown: its exponent may be 0 (form power)."
    told = ", ".join(f"{form} {_percent(found.laws[form].further)}" for form in FORMS)
    what = "the largest size" if found.points.varies[0] else "the most images seen"
    yield f"Robust error at {FURTHER:g} times {what}: {told}."


def _predicted(found: Scaling, prediction: Prediction) -> Iterator[str]:
    times = prediction.size / found.points.size.max()
    yield f"Robust error at N = {_short(prediction.size)}, {times:.3g} times the largest in the fit:"
    for form, forecast in prediction.forecasts.items():
        network = f"[{100 * forecast.network.low:.1f}%, {100 * forecast.network.high:.1f}%]"
        yield f"  {form:11}{_percent(forecast.law):24} a network's mean {network}"
    if not (observed := prediction.observed):
        yield "  observed   no run of this size that is not in the fit"
        return
    runs = ", ".join(f"{100 * error:.1f}%" for error in observed)
    yield f"  observed   {100 * float(np.mean(observed)):.1f}% (mean of {counted(len(observed), 'run')}: {runs})"


def _forms(found: Scaling) -> Iterator[str]:
    size, images = found.points.varies
    u = " + ".join(term for term, varies in (("A/N^a", size), ("B/D^b", images)) if varies)
    yield "Forms (error of predicted error: left-out architectures, held-out largest):"
    for form in FORMS:
        law = found.laws[form]
        held_out = "-" if law.held_out is None else f"{100 * law.held_out:.1f}%"
        mark = "*" if form == found.best else " "
        yield f" {mark}{form:11}error = {_FORMULA[form].format(u=u):42}{100 * law.cross_error:>7.1f}%{held_out:>8}"
        for name, value in law.constants.items():
            if name not in ("A", "B"):
                yield f"     {name:2}{value.value:>9.3f}  [{value.low:.3f}, {value.high:.3f}]"


def _frontier(found: Scaling) -> Iterator[str]:
    if not all(found.points.varies):
        missing = "sizes" if not found.points.varies[0] else "training images seen"
        yield f"No compute-optimal frontier: {missing} do not vary."
        return
    if not found.frontier:
        yield "No compute-optimal frontier: an exponent is too near 0 in too many resamples."
        return
    unit = "images seen" if found.points.per_epoch else "epochs"
    yield f"Compute-optimal (form plateau; compute = N x {unit}, at the runs' range):"
    yield f"  {'compute':>9}{'N':>9}{'95% interval':>20}{unit:>13}{'error':>8}{'95% interval':>18}"
    for each in found.frontier:
        size = f"[{_short(each.size.low)}, {_short(each.size.high)}]"
        error = f"[{100 * each.error.low:.1f}%, {100 * each.error.high:.1f}%]"
        yield (
            f"  {_short(each.compute):>9}{_short(each.size.value):>9}{size:>20}{_short(each.images.value):>13}"
            f"{100 * each.error.value:>7.1f}%{error:>18}"
        )


def _notes(found: Scaling) -> Iterator[str]:
    yield ""
    for name, error, predicted in found.outliers[:_SHOWN]:
        yield f"Outlier: {name}: error {100 * error:.1f}%, predicted {100 * predicted:.1f}%; it counts little."
    if len(found.outliers) > _SHOWN:
        yield f"  and {len(found.outliers) - _SHOWN} more outliers."
    yield (
        f"Fit: Huber's loss on the log error, several starts. Intervals: {found.draws} resamples of the residuals, "
        "between architectures and between the runs of each."
    )
    yield f"What this does not say: {_LIMITS}"


def _short(value: float) -> str:
    scale, prefix = decimal_prefix(value)
    return f"{value / scale:.3g}{prefix}"


def _percent(value: Bounded) -> str:
    return f"{100 * value.value:.1f}% [{100 * value.low:.1f}%, {100 * value.high:.1f}%]"


COLUMNS = ("set", "checkpoint", "form", "what", "at", "value", "low", "high")


def table(found: Scaling, prediction: Prediction | None = None) -> Iterator[dict[str, Any]]:
    """Every number as a row; errors as fractions, A and B for N and D in units of one."""
    if prediction is not None:
        at = f"{prediction.size:.12g}"
        for form, forecast in prediction.forecasts.items():
            yield _row(form, "predicted error", at, forecast.law)
            yield _row(form, "predicted error of one network", at, forecast.network)
        yield from ({"what": "observed error", "at": at, "value": error} for error in prediction.observed)
    for form, law in found.laws.items():
        for name, value in law.constants.items():
            yield _row(form, name, "", value)
        yield _row(form, f"error at {FURTHER:g} times the largest", "", law.further)
        yield {"form": form, "what": "root mean square log error, left-out architectures", "value": law.cross_error}
        if law.held_out is not None:
            yield {"form": form, "what": "root mean square log error, held-out largest", "value": law.held_out}
    for each in found.frontier:
        for name, value in (("optimal N", each.size), ("optimal D", each.images), ("optimal error", each.error)):
            yield _row("plateau", name, f"{each.compute:.6g}", value)


def _row(form: str, what: str, at: str, value: Bounded) -> dict[str, Any]:
    return {"form": form, "what": what, "at": at, "value": value.value, "low": value.low, "high": value.high}
