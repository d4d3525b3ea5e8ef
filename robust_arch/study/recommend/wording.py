"""A recommendation as text of at most 80 columns, the answer first, and as rows for other programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from robust_arch.analysis.bounded import Bounded
from robust_arch.analysis.formatting import counted, decimal_prefix, in_columns
from robust_arch.architectures import arch_name, cost
from robust_arch.study.recommend.recommendation import FAR, Entry, Recommendation

_SHOWN = 5
_RESOURCES = {"params": "parameters", "macs": "MACs"}
_LIMITS = (
    "It is about architectures like those in the studies, which are no random sample, trained and attacked in this "
    "way. A proposal is a guess to be tested, and more seeds tell more than more guesses."
)


def told(found: Recommendation) -> str:
    """The answer, the table, how far the surrogate can be trusted, and what this does not say."""
    lines = [
        *_heading(found), "", *_answer(found), "", *_table(found), "",
        *_warnings(found), *_check(found), *_notes(found),
    ]  # fmt: skip
    return in_columns(lines)


def _heading(found: Recommendation) -> Iterator[str]:
    seen = found.observations
    condition = seen.condition
    yield (
        f"{condition['kind']}; data {condition['data']}, objective {condition['objective']}, trained under "
        f"{condition['train_threat']}, attacked under {condition['threat']}, checkpoint {condition['checkpoint']}, "
        f"{condition['weights']} weights."
    )
    yield f"Predicted: {seen.column}, in percent, under {condition['attacks']}; the mean over seeds."
    noise = "one run each, so that seed noise counts as the architecture's own"
    if seen.scatter is not None:
        noise = f"runs of one architecture scatter by {seen.scatter:.2f} points"
    count = counted(len(seen.names), "architecture")
    if len(seen.names) < found.available:
        count += f" (those of {found.available:,} whose costs are nearest to the budget)"
    yield f"{count}, {counted(int(seen.runs.sum()), 'run')}; {noise}."
    if len(seen.sites) > 1:
        study, recipe, epochs, n_test = seen.sites[seen.reference]
        yield (
            f"{len(seen.sites)} sites (studies, recipes, epochs or numbers of test images), each with a level of its "
            f"own. Predictions are at the level of {study}: recipe {recipe}, {epochs} epochs, {n_test} test images."
        )
    yield from seen.machines
    for text in seen.left_out[:_SHOWN]:
        yield f"Not mixed in: {text}."
    if len(seen.left_out) > _SHOWN:
        yield f"  and {len(seen.left_out) - _SHOWN} more conditions; --where chooses one."


def _answer(found: Recommendation) -> Iterator[str]:
    if not found.differences:
        yield "Answer: no published rule has a network inside this budget; the proposals are compared with nothing."
        return
    above = {name: value for name, value in found.differences.items() if value.low > 0}
    if not above:
        yield (
            "Answer: nothing can be told apart from the rules: the interval of the difference between the first "
            "proposal and each rule contains 0."
        )
    else:
        yield "Answer: the first proposal is predicted above"
        yield from (f"  {name} by {_points(value)}" for name, value in above.items())
    for name, value in found.differences.items():
        if name not in above:
            yield f"  {name}: difference {_points(value)}"


def _table(found: Recommendation) -> Iterator[str]:
    yield f"Inside {found.budget}, the predicted {found.observations.column} with its 95% interval:"
    yield f"  {'':13}{'depths':>9} {'widths':>14}{'params':>8}{'MACs':>8}{'mean':>7}{'interval':>15}"
    for entry in found.entries:
        mark = ("r" if entry.recorded else "") + ("!" if entry.extrapolates else "")
        spec = entry.spec
        interval = f"[{entry.value.low:.1f}, {entry.value.high:.1f}]"
        name = f"proposal {entry.name}" if entry.kind == "proposal" else entry.name
        yield (
            f"  {name:13}{spec.depths_text:>9} {spec.widths_text:>14}{_short(entry.cost.params):>8}"
            f"{_short(entry.cost.macs):>8}{entry.value.value:>7.1f}{interval:>15} {mark}".rstrip()
        )
    for name, why in found.missing.items():
        yield f"  {name}: no network inside ({why.partition(': ')[2] or why})"
    if any(entry.recorded for entry in found.entries):
        yield "  r: this architecture is in the studies."
    if found.observations.scatter is not None:
        first = found.entries[0].of_runs
        yield (
            f"These intervals are for means over all seeds. The mean of {counted(found.seeds, 'new run')} scatters "
            f"more: it is expected in [{first.low:.1f}, {first.high:.1f}] for proposal 1; recommend.csv has the others."
        )


def _warnings(found: Recommendation) -> Iterator[str]:
    far = [entry for entry in found.entries if entry.extrapolates]
    if not far:
        return
    costs = [cost(spec, *found.observations.task) for spec in found.observations.specs]
    for resource in found.budget.resources:
        target = getattr(found.budget, resource)
        low, high = (end(getattr(each, resource) for each in costs) for end in (min, max))
        if not low / (1 + found.budget.tolerance) <= target <= high * (1 + found.budget.tolerance):
            yield (
                f"WARNING: the budget of {_short(target)} {_RESOURCES[resource]} is outside the studies' "
                f"{_short(low)} to {_short(high)}: every prediction extrapolates."
            )
    for entry in far:
        yield f"WARNING: {_named(entry)} extrapolates (!): {', '.join(_reasons(entry))}."
    yield ""


def _reasons(entry: Entry) -> Iterator[str]:
    yield from entry.outside
    if entry.distance > FAR:
        yield f"{entry.distance:.1f} length scales from the nearest architecture in the studies"


def _check(found: Recommendation) -> Iterator[str]:
    tau, n = found.check.tau, found.check.tau.n
    shown = "not defined" if tau.tau is None else f"{tau.tau:+.2f}"
    if tau.low is not None and tau.high is not None:
        shown += f" [{tau.low:+.2f}, {tau.high:+.2f}]"
    yield (
        f"Surrogate, each architecture predicted by the others: Kendall's tau {shown}; the 95% interval holds the "
        f"observed mean of {found.check.covered} of {found.check.n} ({100 * found.check.covered / found.check.n:.0f}%; "
        f"n = {n})."
    )
    if tau.low is None or tau.low <= 0:
        yield "It does not rank left-out architectures better than chance: its order means little."


def _notes(found: Recommendation) -> Iterator[str]:
    for name in found.far[:_SHOWN]:
        yield f"Far from what the others predict, counts little: {name}."
    if len(found.far) > _SHOWN:
        yield f"  and {len(found.far) - _SHOWN} more."
    yield from (f"Far from its other runs, counts little: {text}." for text in found.observations.wild[:_SHOWN])
    yield f"Variables: {', '.join(found.names)}."
    kept = "in no particular way"
    if found.apart > 0:
        kept = f"by {found.apart:g} doublings or more in a stage's depth or width"
    yield (
        f"Chosen among {counted(found.candidates, 'candidate')} in steps of {counted(found.step, 'channel')}; "
        f"proposals differ {kept}."
    )
    yield f"What this does not say: {_LIMITS}"


def _named(entry: Entry) -> str:
    return f"proposal {entry.name}" if entry.kind == "proposal" else f"the {entry.name} rule"


def _points(value: Bounded) -> str:
    return f"{value.value:+.2f} [{value.low:+.2f}, {value.high:+.2f}] points"


def _short(value: float) -> str:
    scale, prefix = decimal_prefix(value)
    return f"{value / scale:.3g}{prefix}"


COLUMNS = (
    "what", "name", "arch", "depths", "widths", "params", "macs", "value", "low", "high", "runs", "runs_low",
    "runs_high", "recorded", "extrapolates",
)  # fmt: skip


def table(found: Recommendation) -> Iterator[dict[str, Any]]:
    """Proposals and rules with their predictions in percent, differences to rules in points, and the check."""
    for entry in found.entries:
        yield {
            "what": entry.kind,
            "name": entry.name,
            "arch": arch_name(entry.spec),
            "depths": entry.spec.depths_text,
            "widths": entry.spec.widths_text,
            "params": entry.cost.params,
            "macs": entry.cost.macs,
            **vars(entry.value),
            "runs": found.seeds,
            "runs_low": entry.of_runs.low,
            "runs_high": entry.of_runs.high,
            "recorded": entry.recorded,
            "extrapolates": "; ".join(_reasons(entry)),
        }
    for name, value in found.differences.items():
        yield {"what": "first proposal minus rule", "name": name, **vars(value)}
    tau = found.check.tau
    yield {
        "what": "left out: Kendall's tau",
        "name": f"n = {tau.n}",
        "value": tau.tau,
        "low": tau.low,
        "high": tau.high,
    }
    yield {
        "what": "left out: share inside the 95% interval", "name": f"n = {found.check.n}",
        "value": found.check.covered / found.check.n,
    }  # fmt: skip
