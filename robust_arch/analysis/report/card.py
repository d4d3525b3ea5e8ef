"""A model card: a network, its training and its evaluations in one short Markdown file."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from robust_arch.analysis.formatting import counted, operations
from robust_arch.analysis.report.smoothness import STAGE_COLUMNS, stage_rows
from robust_arch.common.files import write_text
from robust_arch.runs import RunFolder
from robust_arch.runs.schema import SMOOTHNESS_ATTACK

_PLAIN = (bool, int, float, str, list)


def write_card(folder: RunFolder) -> Path:
    """Write evaluations/card.md of a run from its records, and return its path."""
    path = folder.evaluations / "card.md"
    write_text(path, "\n".join(_card(folder)) + "\n")
    return path


def _card(folder: RunFolder) -> Iterator[str]:
    facts = folder.status["run"]
    yield f"# Model card: {facts['arch']}, run {facts['run_id']}"
    yield ""
    yield (
        f"- **Architecture:** {facts['arch']} (family {facts['family']}, depths {facts['depths']}, widths "
        f"{facts['widths']}); {facts['params']:,} parameters, {operations(facts['macs'])} multiply-accumulates per "
        "image"
    )
    yield from _training(folder, facts)
    for record in sorted(folder.evaluation_records(), key=lambda record: (record["checkpoint"], -record["n_test"])):
        yield from _evaluation(record)


def _training(folder: RunFolder, facts: Mapping[str, Any]) -> Iterator[str]:
    result = folder.result
    if result is None:
        yield "- **Training:** not known; an imported checkpoint"
        return
    config = folder.recorded_config
    yield (
        f"- **Training:** objective {facts['objective']}{_details(config.get('objective'))}, under "
        f"{facts['train_threat']}, seed {facts['seed']}, {counted(result['last_epoch'] + 1, 'epoch')} in "
        f"{result['train_seconds']:,.0f} s; best epoch {result['best_epoch'] + 1} by robust accuracy on "
        f"{result['selection_images']} held-out images"
    )
    yield f"- **Recipe:** {facts['recipe']}{_details(config.get('recipe'))}"
    if data := result.get("data"):
        sizes = f"{data['train']:,} to train, {data['val']:,} held out, {data['test']:,} to test"
        yield f"- **Data:** {data['name']}, {sizes}"
    if command := result.get("command"):
        yield f"- **Trained with:** `{command}`"
    yield from (f"- **Warning:** {flag}" for flag in result.get("flags", []))


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


def _evaluation(record: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield (
        f"## Checkpoint {record['checkpoint']}, {record['weights']} weights, {record['threat']}, "
        f"{record['n_test']:,} test images of {record['data']}"
    )
    yield ""
    if normalisation := record.get("normalisation"):
        yield f"- **Normalisation:** {normalisation['text']}"
        yield ""
    if reasons := record.get("invalid"):
        yield "**Invalid: none of these numbers may be used.**"
        yield from (f"- {reason}" for reason in reasons)
        yield ""
    yield "| attack | correct (%) | 95% interval | n | what it is |"
    yield "|---|---:|---:|---:|---|"
    yield _row("none (clean)", record["clean"], "")
    for name, attack in record["attacks"].items():
        yield _row(name, attack, _what(attack))
    if "worst_case" in record:
        yield _row("**worst case**", record["worst_case"], "point-wise over all of the above")
    yield ""
    yield from _smoothness(record)
    yield from (f"- **Warning:** {warning}" for warning in record.get("warnings", []))
    for verdict in record.get("diagnostics", {}).get("verdicts", []):
        yield f"- Gradient masking, {verdict['name']}: {'pass' if verdict['ok'] else '**FLAG**'}. {verdict['text']}"
    if smoothness := record.get("smoothness"):
        yield from _stages(smoothness)
    if about := record.get("about"):
        command, version, device = (about.get(key, "unrecorded") for key in ("command", "torch_version", "device"))
        yield f"- Evaluated with `{command}`, torch {version}, float32, on {device}"


def _stages(smoothness: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield f"| part, on {smoothness['n']:,} images under {SMOOTHNESS_ATTACK} | {' | '.join(STAGE_COLUMNS[1:])} |"
    yield "|---|---:|---:|---:|---:|"
    yield from (f"| {' | '.join(row)} |" for row in stage_rows(smoothness))
    yield ""
    if all(stage["bound"] is None for stage in smoothness["stages"]):
        yield "The bounds of the network's parts are not available for this family."
        yield ""


def _row(name: str, share: Mapping[str, Any], what: str) -> str:
    low, high = share["interval"]
    return f"| {name} | {share['percent']:.2f} | {low:.2f} to {high:.2f} | {share['n']:,} | {what} |"


def _what(attack: Mapping[str, Any]) -> str:
    if stages := attack.get("stages"):
        parts = [f"{stage['attack']} left {stage['standing']:,} of {stage['attacked']:,}" for stage in stages]
        what = f"each on the images that withstood the attacks before it: {', '.join(parts)}"
    else:
        what = ", ".join(_settings(attack.get("settings", {})))
    return f"{what}; seed {attack.get('seed', 'unrecorded')}; {attack.get('implementation', 'unrecorded')}"


def _settings(settings: Any) -> Iterator[str]:
    for key, value in settings.items() if isinstance(settings, Mapping) else ():
        if isinstance(value, Mapping):
            inner = ", ".join(f"{name} {item}" for name, item in value.items() if name != "class")
            yield f"{key} {value.get('class', '')}" + (f" ({inner})" if inner else "")
        elif key != "class":
            yield f"{key} {value}"


def _smoothness(record: Mapping[str, Any]) -> Iterator[str]:
    if "stability" not in record:
        return
    share = record["stability"]
    low, high = share["interval"]
    yield (
        f"- Under {SMOOTHNESS_ATTACK} the predicted class stays the same for {share['percent']:.2f}% "
        f"[{low:.2f}, {high:.2f}] of {share['n']:,} images"
    )
    names = {
        "lipschitz": "local Lipschitz constant (l1 of logits over l-inf)",
        "lipschitz_kl": "KL over l-inf",
        "lipschitz_l2": "l2 over l2",
        "fosc": "first-order stationary condition",
    }
    means = [
        f"{name} {record[key]['mean']:.4g} (n={record[key]['n']:,})"
        for key, name in names.items()
        if record.get(key, {}).get("mean") is not None
    ]
    yield f"- Means under {SMOOTHNESS_ATTACK}: {', '.join(means)}"
