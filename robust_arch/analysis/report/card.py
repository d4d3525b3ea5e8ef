"""A model card: a network, its training and its evaluations in one short Markdown file."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from robust_arch.analysis.formatting import counted, operations
from robust_arch.analysis.report.smoothness import STAGE_COLUMNS, stage_rows
from robust_arch.common.files import write_text
from robust_arch.runs import Evaluation, RecordedRun, RunFacts, RunFolder
from robust_arch.runs.records import SMOOTHNESS_ATTACK, AttackRecord, Share, Smoothness

_PLAIN = (bool, int, float, str, list)
_MEANS = {
    "lipschitz": "local Lipschitz constant (l1 of logits over l-inf)",
    "lipschitz_kl": "KL over l-inf",
    "lipschitz_l2": "l2 over l2",
    "fosc": "first-order stationary condition",
}


def write_card(folder: RunFolder) -> Path:
    """Write evaluations/card.md of a run from its records, and return its path."""
    path = folder.evaluations / "card.md"
    run = folder.read()
    write_text(path, "\n".join(_card(run, run.facts) if run.facts else ()) + "\n")
    return path


def _card(run: RecordedRun, facts: RunFacts) -> Iterator[str]:
    yield f"# Model card: {facts.arch}, run {facts.run_id}"
    yield ""
    stages = f", depths {facts.depths}, widths {facts.widths}" if facts.depths and facts.widths else ""
    yield (
        f"- **Architecture:** {facts.arch} (family {facts.family}{stages}); "
        f"{facts.params:,} parameters, {operations(facts.macs)} multiply-accumulates per image"
    )
    yield from _training(run, facts)
    yield from _evaluations(run.evaluations)


def write_model_card(path: Path, name: str, params: int, evaluations: Iterable[Evaluation]) -> None:
    """Write the card of a network that is no run; how it was trained is not known. params: of the whole network."""
    head = [
        f"# Model card: {name}",
        "",
        f"- **Architecture:** {name}; {params:,} parameters",
        "- **Training:** not known",
    ]
    write_text(path, "\n".join([*head, *_evaluations(evaluations)]) + "\n")


def _evaluations(records: Iterable[Evaluation]) -> Iterator[str]:
    for record in sorted(records, key=lambda each: (each.checkpoint, each.weights == "raw", -each.n_test)):
        yield from _evaluation(record)


def _training(run: RecordedRun, facts: RunFacts) -> Iterator[str]:
    result = run.result
    if result is None:
        yield "- **Training:** not known; an imported checkpoint"
        return
    config = run.folder.recorded_config
    weights = "" if result.selected_weights == "raw" else f" of the {result.selected_weights} weights"
    yield (
        f"- **Training:** objective {facts.objective}{_details(config.get('objective'))}, under "
        f"{facts.train_threat}, seed {facts.seed}, {counted(result.last_epoch + 1, 'epoch')} in "
        f"{result.train_seconds:,.0f} s; best epoch {result.best_epoch + 1} by robust accuracy{weights} on "
        f"{result.selection_images} held-out images"
    )
    yield f"- **Recipe:** {facts.recipe}{_details(config.get('recipe'))}"
    if data := result.data:
        yield f"- **Data:** {data.name}, {data.train:,} to train, {data.val:,} held out, {data.test:,} to test"
        if extra := data.extra:
            yield f"- **Extra data:** {extra.name}, {extra.images:,} images, {extra.per_batch:,} of each batch"
    if result.command:
        yield f"- **Trained with:** `{result.command}`"
    yield from (f"- **Warning:** {flag}" for flag in result.flags)


def _details(node: Any) -> str:
    """Settings as ` (beta 6.0, optimizer lr 0.1)`, without names of classes and paths."""
    settings = ", ".join(_flat(node)) if isinstance(node, Mapping) else ""
    return f" ({settings})" if settings else ""


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key} ")
        elif not str(key).startswith("_") and key != "name" and isinstance(value, _PLAIN):
            yield f"{prefix}{key} {value}"


def _evaluation(record: Evaluation) -> Iterator[str]:
    yield ""
    yield (
        f"## Checkpoint {record.checkpoint}, {record.weights} weights, {record.threat}, "
        f"{record.n_test:,} test images of {record.data}"
    )
    yield ""
    if record.normalisation:
        yield f"- **Normalisation:** {record.normalisation.text}"
        yield ""
    if record.invalid:
        yield "**Invalid: none of these numbers may be used.**"
        yield from (f"- {reason}" for reason in record.invalid)
        yield ""
    yield "| attack | correct (%) | 95% interval | n | what it is |"
    yield "|---|---:|---:|---:|---|"
    yield _row("none (clean)", record.clean, "")
    for name, attack in record.attacks.items():
        yield _row(name, attack, _what(attack))
    if record.worst_case:
        yield _row("**worst case**", record.worst_case, "point-wise over all of the above")
    yield ""
    yield from _stability(record)
    yield from (f"- **Warning:** {warning}" for warning in record.warnings)
    for verdict in record.diagnostics.verdicts if record.diagnostics else ():
        yield f"- Gradient masking, {verdict.name}: {'pass' if verdict.ok else '**FLAG**'}. {verdict.text}"
    if record.smoothness:
        yield from _stages(record.smoothness)
    if about := record.about:
        command, version, device = (
            value or "unrecorded" for value in (about.command, about.torch_version, about.device)
        )
        yield f"- Evaluated with `{command}`, torch {version}, float32, on {device}"


def _stages(smoothness: Smoothness) -> Iterator[str]:
    yield ""
    yield f"| part, on {smoothness.n:,} images under {SMOOTHNESS_ATTACK} | {' | '.join(STAGE_COLUMNS[1:])} |"
    yield "|---|---:|---:|---:|---:|"
    yield from (f"| {' | '.join(row)} |" for row in stage_rows(smoothness))
    yield ""
    if all(stage.bound is None for stage in smoothness.stages):
        yield "The bounds of the network's parts are not available for this family."
        yield ""


def _row(name: str, share: Share, what: str) -> str:
    low, high = share.interval
    return f"| {name} | {share.percent:.2f} | {low:.2f} to {high:.2f} | {share.n:,} | {what} |"


def _what(attack: AttackRecord) -> str:
    if attack.stages:
        parts = [f"{stage.attack} left {stage.standing:,} of {stage.attacked:,}" for stage in attack.stages]
        what = f"each on the images that withstood the attacks before it: {', '.join(parts)}"
    else:
        what = ", ".join(_settings(attack.settings))
    return f"{what}; seed {'unrecorded' if attack.seed is None else attack.seed}; {attack.implementation}"


def _settings(settings: Any) -> Iterator[str]:
    for key, value in settings.items() if isinstance(settings, Mapping) else ():
        if isinstance(value, Mapping):
            inner = ", ".join(f"{name} {item}" for name, item in value.items() if name != "class")
            yield f"{key} {value.get('class', '')}" + (f" ({inner})" if inner else "")
        elif key != "class":
            yield f"{key} {value}"


def _stability(record: Evaluation) -> Iterator[str]:
    share = record.stability
    if share is None:
        return
    low, high = share.interval
    yield (
        f"- Under {SMOOTHNESS_ATTACK} the predicted class stays the same for {share.percent:.2f}% "
        f"[{low:.2f}, {high:.2f}] of {share.n:,} images"
    )
    found = {text: getattr(record, name) for name, text in _MEANS.items()}
    means = [f"{text} {mean.mean:.4g} (n={mean.n:,})" for text, mean in found.items() if mean and mean.mean is not None]
    if means:
        yield f"- Means under {SMOOTHNESS_ATTACK}: {', '.join(means)}"
