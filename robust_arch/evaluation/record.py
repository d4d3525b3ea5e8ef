"""An evaluation record: (checkpoint, weights, threat, examples) and every number computed on them."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from robust_arch.attacks import ThreatModel
from robust_arch.common.files import read_arrays, read_json, write_arrays, write_json
from robust_arch.common.identity import short_hash
from robust_arch.common.statistics import compare_paired, recorded_share
from robust_arch.evaluation.checks import Check
from robust_arch.evaluation.examples import Examples
from robust_arch.evaluation.saved_batches import remove_blocks
from robust_arch.evaluation.scoring import Outcome
from robust_arch.evaluation.settings import EvaluationSettings, NamedAttack
from robust_arch.runs.fields import Identifier, Message, MisfitError, Name, Plain, Seconds, Seed, expect
from robust_arch.runs.records import SMOOTHNESS_ATTACK, AttackName, AttackRecord, Evaluation, PreflightCheck

log = logging.getLogger(__name__)

SCHEMA = 2
_MEASURES = {"l1_linf": "lipschitz", "kl": "lipschitz_kl", "l2": "lipschitz_l2", "fosc": "fosc"}
_PARTS = ("diagnostics", "smoothness")
_SUSPICIOUS_P = 0.01  # of the paired test whether one step breaks more images than twenty steps


class _ExtensibleAttack(AttackRecord):
    settings: Plain
    eps: Name
    seed: Seed
    implementation: Name
    seconds: Seconds
    problems: list[Message]
    warnings: list[Message]


class ExtensibleEvaluation(Evaluation):
    """An evaluation of this version, to which further attacks can be added."""

    version: Annotated[Plain, Field(alias="schema"), expect(str(SCHEMA), lambda version: version == SCHEMA)]
    eval_id: Identifier
    run_id: Identifier
    eps: Name
    examples_fingerprint: Name
    preflight: list[PreflightCheck]
    invalid: list[Message]
    warnings: list[Message]
    attacks: dict[AttackName, _ExtensibleAttack]  # type: ignore[assignment]  # a mapping that is only read


@dataclass(frozen=True)
class Subject:
    """The subject of an evaluation.

    Attributes:
        run_id: the run that the checkpoint is of.
        checkpoint: best, last or external.
        weights: raw, ema or swa.
        threat: what the attacker may do.
        data: label of the data set.
        normalisation: mean, std and where they are from; None where the run's configuration says it.
    """

    run_id: str
    checkpoint: str
    weights: str
    threat: ThreatModel
    data: str
    normalisation: Mapping[str, Any] | None = None


class EvaluationRecord:
    """`folder`/<eval_id>.json and .npz: read if they exist, extended part by part, written after each part."""

    def __init__(self, folder: Path, subject: Subject, examples: Examples) -> None:
        fingerprint = examples.images.fingerprint()
        identity = [subject.run_id, subject.checkpoint, subject.weights, str(subject.threat), fingerprint]
        self.eval_id = short_hash(identity)
        self.examples = examples
        self.folder = folder
        self.json_path = folder / f"{self.eval_id}.json"
        self.arrays_path = folder / f"{self.eval_id}.npz"
        self.content: dict[str, Any] = {
            "schema": SCHEMA,
            "eval_id": self.eval_id,
            "run_id": subject.run_id,
            "checkpoint": subject.checkpoint,
            "weights": subject.weights,
            "threat": str(subject.threat),
            "eps": str(subject.threat.eps_fraction),
            "data": subject.data,
            "examples_fingerprint": fingerprint,
            "n_test": len(examples),
            "precision": "float32",
            **({} if subject.normalisation is None else {"normalisation": dict(subject.normalisation)}),
            "preflight": [],
            "invalid": [],
            "warnings": [],
            "attacks": {},
        }
        self.arrays: dict[str, np.ndarray] = {
            "index": examples.index.numpy(),
            "label": examples.images.labels.numpy().astype(np.int32),
        }
        self._read()

    def _read(self) -> None:
        """Read what is recorded; a pair that is incomplete or does not fit counts as missing."""
        content, arrays = read_json(self.json_path), read_arrays(self.arrays_path)
        if content is None or arrays is None or content.get("schema") != SCHEMA:
            return
        try:
            record = ExtensibleEvaluation.read(content)
        except MisfitError as misfit:
            log.warning("left out: %s: %s", self.json_path, misfit)
            return
        if record.is_whole_with(arrays):
            known = {"normalisation": self.content["normalisation"]} if "normalisation" in self.content else {}
            # files of earlier versions hold no labels
            self.content, self.arrays = {**content, **known}, {**self.arrays, **arrays}

    @property
    def described(self) -> str:
        """Checkpoint and weights, for the log: "best checkpoint", or "best checkpoint, ema weights"."""
        weights = self.content["weights"]
        return f"{self.content['checkpoint']} checkpoint" + ("" if weights == "raw" else f", {weights} weights")

    @property
    def has_clean(self) -> bool:
        """Whether clean accuracy is recorded."""
        return "clean" in self.content

    @property
    def invalid(self) -> list[str]:
        """Why none of the numbers may be used; empty if they may."""
        reasons: list[str] = self.content["invalid"]
        return reasons

    def is_complete(self, settings: EvaluationSettings) -> bool:
        """Whether everything requested is recorded, or a failed check rules it out."""
        return self.has_clean and (bool(self.invalid) or not any(self.missing(settings)))

    def missing(self, settings: EvaluationSettings) -> Iterator[str]:
        """Names of the requested parts that are not recorded with these settings and this seed."""
        for named in settings.attacks:
            if not self.has(named, settings.seed) or (settings.save_images and not self._has_images(named.name)):
                yield named.name
        if settings.cascade:
            recorded = self.content["attacks"].get(settings.cascade_name)
            if recorded is None or not _same(recorded, cascade_settings(settings.cascade), settings.seed):
                yield settings.cascade_name
        for part in _PARTS:
            if n := getattr(settings, part):
                asked = {"examples": min(n, len(self.examples)), "seed": settings.seed}
                if {key: self.content.get(part, {}).get(key) for key in asked} != asked:
                    yield part

    def has(self, named: NamedAttack, seed: int) -> bool:
        """Whether the attack is recorded with these settings and this seed."""
        recorded = self.content["attacks"].get(named.name)
        return recorded is not None and _same(recorded, named.settings, seed)

    def _has_images(self, name: str) -> bool:
        """Whether the images of the recorded attack, not those of an earlier seed, are saved."""
        return bool(self.content["attacks"][name]["images"]) and self.images_path(name).is_file()

    def images_path(self, name: str) -> Path:
        """The file of the attacked images, if they are saved."""
        return self.folder / f"{self.eval_id}.{name}.safetensors"

    def add_clean(self, clean: Tensor, checks: Sequence[Check], about: Mapping[str, Any]) -> None:
        """Add clean accuracy, the checks before any attack, and command and provenance of what follows."""
        self.arrays["clean"] = clean.numpy()
        checked = [asdict(check) for check in checks]
        self.content |= {"clean": share(clean), "about": dict(about), "preflight": checked}
        self.write()

    def add_attack(self, named: NamedAttack, seed: int, outcome: Outcome) -> None:
        """Add an attack; an example counts as robust if it is classified correctly at x and at x'."""
        robust = torch.from_numpy(self.arrays["clean"]) & outcome.correct
        self.arrays[named.name] = robust.numpy()
        self.content["attacks"][named.name] = {
            **share(robust),
            "settings": dict(named.settings),
            "eps": self.content["eps"],
            "seed": seed,
            "implementation": named.attack.implementation,
            "seconds": round(outcome.seconds, 3),
            "images": outcome.x_adv is not None,
            "problems": outcome.problems,
            "warnings": outcome.warnings,
        }
        if outcome.x_adv is None:
            self.images_path(named.name).unlink(missing_ok=True)
        if outcome.stable is not None:
            self.content["stability"] = share(outcome.stable)
        self.content |= {_MEASURES[name]: _mean(values) for name, values in outcome.measures.items()}
        self.write()

    def add_cascade(self, settings: EvaluationSettings, standing: Tensor, stages: Sequence[Mapping[str, Any]]) -> None:
        """Add the examples that withstood every attack of the cascade, and what each attack saw and left."""
        self.arrays[settings.cascade_name] = standing.numpy()
        implementations = {named.attack.implementation: None for named in settings.cascade}
        self.content["attacks"][settings.cascade_name] = {
            **share(standing),
            "settings": cascade_settings(settings.cascade),
            "eps": self.content["eps"],
            "seed": settings.seed,
            "implementation": ", ".join(implementations),
            "seconds": round(sum(stage["seconds"] for stage in stages), 3),
            "stages": [dict(stage) for stage in stages],
            "problems": [problem for stage in stages for problem in stage["problems"]],
            "warnings": [warning for stage in stages for warning in stage["warnings"]],
        }
        self.write()

    def add_part(self, part: str, content: Mapping[str, Any], examples: int, seed: int) -> None:
        """Add `diagnostics` or `smoothness`, plain data on `examples` images."""
        self.content[part] = {**content, "examples": examples, "seed": seed}
        self.write()

    def take_over(self, other: "EvaluationRecord") -> None:
        """Copy the results of another checkpoint with the same weights; attacks that it lacks are kept."""
        own = ("eval_id", "run_id", "checkpoint", "weights", "attacks")
        self.content |= {key: value for key, value in other.content.items() if key not in own}
        self.content["attacks"] |= other.content["attacks"]
        self.arrays |= other.arrays
        self.write()

    def forget(self, settings: EvaluationSettings) -> None:
        """Remove everything requested from the record, so that it is computed again."""
        for name in (*(named.name for named in settings.attacks), settings.cascade_name):
            self.content["attacks"].pop(name, None)
            self.arrays.pop(name, None)
            if name == SMOOTHNESS_ATTACK:
                for measure in ("stability", *_MEASURES.values()):
                    self.content.pop(measure, None)
        for part in (*_PARTS, "worst_case"):
            self.content.pop(part, None)
        self.content["invalid"] = []
        self.remove_blocks()

    def remove_blocks(self) -> None:
        """Remove the files of interrupted attacks."""
        remove_blocks(self.folder, self.eval_id)

    def write(self) -> None:
        """Replace both files, with worst case and verdicts up to date."""
        write_pair(self.json_path, self.content, self.arrays)

    def summary(self) -> str:
        """One line with every accuracy and n, or why the record is invalid."""
        if self.invalid:
            return f"invalid: {'; '.join(self.invalid)}"
        parts = {"clean": self.content["clean"], **self.content["attacks"]}
        if "worst_case" in self.content:
            parts["worst case"] = self.content["worst_case"]
        return (
            ", ".join(f"{name} {part['percent']:.1f}%" for name, part in parts.items()) + f" (n={len(self.examples)})"
        )


def write_pair(json_path: Path, content: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Replace a record's two files, with worst case and verdicts in `content` up to date."""
    _update_worst_case(content, arrays)
    _update_verdicts(content, arrays)
    # arrays first, so that the JSON file never names an attack without booleans
    write_arrays(json_path.with_suffix(".npz"), arrays)
    write_json(json_path, content)


def _update_worst_case(content: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """An image is robust in the worst case if it is classified correctly at x and under every recorded attack."""
    if attacks := content["attacks"]:
        worst = np.logical_and.reduce([arrays[name] for name in attacks])
        content["worst_case"] = {**share(torch.from_numpy(worst)), "attacks": sorted(attacks)}


def _update_verdicts(content: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    preflight, attacks = content["preflight"], content["attacks"]
    by_state = {
        state: [f"{check['name']}: {check['detail']}" for check in preflight if check["state"] == state]
        for state in ("failed", "warning")
    }
    content["invalid"] = by_state["failed"] + _told(attacks, "problems")
    flagged = [
        f"gradient masking, {verdict['name']}: {verdict['text']}"
        for verdict in content.get("diagnostics", {}).get("verdicts", [])
        if not verdict["ok"]
    ]
    content["warnings"] = [*by_state["warning"], *_told(attacks, "warnings"), *_one_step_beats_many(arrays), *flagged]


def _one_step_beats_many(arrays: Mapping[str, np.ndarray]) -> Iterator[str]:
    if not {"fgsm", SMOOTHNESS_ATTACK} <= set(arrays):
        return
    pair = compare_paired(arrays[SMOOTHNESS_ATTACK], arrays["fgsm"])
    if pair.difference > 0 and pair.p_value < _SUSPICIOUS_P:
        yield (
            f"one step of fgsm breaks {pair.only_first} examples that {SMOOTHNESS_ATTACK} does not, of {pair.n}, "
            f"and the reverse is true of {pair.only_second}: gradients may be masked"
        )


def share(flags: Tensor) -> dict[str, Any]:
    """Count, percent of n and 95% Wilson interval in percent. flags: (n,) booleans."""
    return recorded_share(int(flags.sum()), len(flags))


def cascade_settings(cascade: Sequence[NamedAttack]) -> list[dict[str, Any]]:
    """The settings of a cascade: its attacks, in order."""
    return [{"attack": named.name, **named.settings} for named in cascade]


def _same(recorded: Mapping[str, Any], settings: object, seed: int) -> bool:
    return bool(recorded.get("settings") == settings and recorded.get("seed") == seed)


def _mean(values: Tensor) -> dict[str, Any]:
    """Mean of (n,) numbers; NaN, where x' = x, is left out and counted."""
    defined = values[~values.isnan()]
    mean = float(defined.mean()) if len(defined) else None
    return {"mean": mean, "n": len(defined), "left_out": len(values) - len(defined)}


def _told(attacks: Mapping[str, Any], what: str) -> list[str]:
    return [f"{name}: {message}" for name, attack in attacks.items() for message in attack[what]]
