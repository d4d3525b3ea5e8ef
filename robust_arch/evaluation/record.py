"""An evaluation record: (checkpoint, weights, threat, examples) and every number computed on them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robust_arch.attacks import ThreatModel
from robust_arch.data import ImageSet, stratified
from robust_arch.evaluation.scoring import Examples, Outcome, clean_logits, run_attack
from robust_arch.evaluation.settings import EvaluationSettings, NamedAttack
from robust_arch.files import read_json, write_arrays, write_json
from robust_arch.identity import short_hash
from robust_arch.statistics import wilson_interval

SCHEMA = 1
SMOOTHNESS_ATTACK = "pgd20"
"""The attack whose images stability and local Lipschitz constant are computed on."""


@dataclass(frozen=True)
class Subject:
    """What is evaluated. checkpoint: best, last or external; weights: raw or ema; data: label of the data set."""

    run_id: str
    checkpoint: str
    weights: str
    threat: ThreatModel
    data: str


@lru_cache(maxsize=4)  # a sweep asks for the same examples for every run
def select_examples(test: ImageSet, n: int | None) -> Examples:
    """The whole test set, or `n` of it in the classes' proportions by a fixed seed."""
    index = torch.arange(len(test)) if n is None or n == len(test) else stratified(test.labels, n, seed=0)
    return Examples(test.subset(index), index)


class EvaluationRecord:
    """`folder`/<eval_id>.json and .npz; read if there, extended attack by attack, written after each."""

    def __init__(self, folder: Path, subject: Subject, examples: Examples) -> None:
        fingerprint = examples.images.fingerprint()
        identity = [subject.run_id, subject.checkpoint, subject.weights, str(subject.threat), fingerprint]
        self.eval_id = short_hash(identity)
        self.examples = examples
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
            "attacks": {},
        }
        self.arrays: dict[str, np.ndarray] = {"index": examples.index.numpy()}
        self._read()

    def _read(self) -> None:
        """Take over what is recorded; a torn or half-written pair counts as nothing recorded."""
        content = read_json(self.json_path)
        if content is None or content.get("schema") != SCHEMA:
            return
        try:
            with np.load(self.arrays_path, allow_pickle=False) as arrays:
                self.arrays = {name: arrays[name] for name in arrays.files}
        except Exception:  # numpy raises a dozen kinds for a torn archive
            return
        if set(content["attacks"]) | {"index", "clean"} <= set(self.arrays):
            self.content = content

    def missing(self, attacks: Sequence[NamedAttack], seed: int) -> list[NamedAttack]:
        """The attacks that are not recorded with these very settings and seed."""
        recorded = self.content["attacks"]
        return [
            named
            for named in attacks
            if named.name not in recorded
            or recorded[named.name]["settings"] != named.settings
            or recorded[named.name]["seed"] != seed
        ]

    @property
    def has_clean(self) -> bool:
        """Whether clean accuracy is recorded."""
        return "clean" in self.content

    def extend(self, net: nn.Module, settings: EvaluationSettings, threat: ThreatModel, device: torch.device) -> None:
        """Run what is missing and write after each attack; `net` is on `device`, in float32."""
        attacks = self.missing(settings.attacks, settings.seed)
        if self.has_clean and not attacks:
            return
        # robust accuracy is of float32: TensorFloat-32 keeps ten bits of each factor
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        net.eval().to(memory_format=torch.channels_last)
        logits = clean_logits(net, self.examples, device, settings.batch_size)
        predicted = logits.argmax(dim=1)
        clean = predicted == self.examples.images.labels
        self.arrays["clean"] = clean.numpy()
        self.content["clean"] = self._share(clean)
        self.content["device"] = str(device)
        self._write()
        for named in attacks:
            outcome = run_attack(
                net,
                self.examples,
                named.attack,
                threat,
                logits,
                device=device,
                batch_size=settings.batch_size,
                seed=settings.seed,
            )
            self._add(named, settings.seed, clean, predicted, outcome)

    def take_over(self, other: "EvaluationRecord", attacks: Sequence[NamedAttack]) -> None:
        """Record these attacks' numbers from another checkpoint that holds the same weights; others stay."""
        names = [named.name for named in attacks]
        for key in ("clean", "device", *(("stability", "lipschitz") if SMOOTHNESS_ATTACK in names else ())):
            self.content[key] = other.content[key]
        for name in names:
            self.content["attacks"][name] = other.content["attacks"][name]
        self.arrays |= {name: other.arrays[name] for name in ("clean", *names)}
        self._update_worst_case()
        self._write()

    def forget(self, attacks: Sequence[NamedAttack]) -> None:
        """Let these attacks be run again, though they are recorded."""
        for named in attacks:
            self.content["attacks"].pop(named.name, None)

    def _update_worst_case(self) -> None:
        """Point-wise over every recorded attack: robust is who was correct at x and under each of them."""
        if attacks := self.content["attacks"]:
            worst = np.logical_and.reduce([self.arrays[name] for name in attacks])
            self.content["worst_case"] = {**self._share(torch.from_numpy(worst)), "attacks": sorted(attacks)}

    def _add(self, named: NamedAttack, seed: int, clean: Tensor, predicted: Tensor, outcome: Outcome) -> None:
        robust = clean & outcome.correct
        self.arrays[named.name] = robust.numpy()
        self.content["attacks"][named.name] = {
            **self._share(robust),
            "settings": dict(named.settings),
            "seed": seed,
            "implementation": named.attack.implementation,
            "seconds": round(outcome.seconds, 3),
        }
        self._update_worst_case()
        if named.name == SMOOTHNESS_ATTACK:
            self.content["stability"] = self._share(outcome.predicted == predicted)
            moved = outcome.lipschitz[~outcome.lipschitz.isnan()]
            self.content["lipschitz"] = {
                "mean": float(moved.mean()) if len(moved) else None,
                "n": len(moved),
                "left_out": len(outcome.lipschitz) - len(moved),
            }
        self._write()

    def summary(self) -> str:
        """One line with every accuracy and n."""
        parts = {"clean": self.content["clean"], **self.content["attacks"]}
        if "worst_case" in self.content:
            parts["worst case"] = self.content["worst_case"]
        return (
            ", ".join(f"{name} {part['percent']:.1f}%" for name, part in parts.items()) + f" (n={len(self.examples)})"
        )

    def _share(self, flags: Tensor) -> dict[str, Any]:
        """Count, percent of n and 95% Wilson interval in percent."""
        count, n = int(flags.sum()), len(flags)
        low, high = wilson_interval(count, n)
        return {"count": count, "n": n, "percent": 100 * count / n, "interval": [100 * low, 100 * high]}

    def _write(self) -> None:
        # arrays first: a JSON file then never speaks of an attack whose booleans are not there
        write_arrays(self.arrays_path, self.arrays)
        write_json(self.json_path, self.content)
