"""One attack on one set of images: which survive, which predictions are stable, how far the logits move."""

import json
import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from robust_arch.attacks import Attack, ThreatModel
from robust_arch.common.progress import duration, tell, watched
from robust_arch.evaluation.checks import after_attack, not_finite
from robust_arch.evaluation.examples import Examples
from robust_arch.evaluation.saved_batches import Blocks, Part
from robust_arch.evaluation.settings import NamedAttack
from robust_arch.evaluation.smoothness import LIPSCHITZ_FORMS, fosc, local_lipschitz

log = logging.getLogger(__name__)

_NEWS = 10.0  # seconds between two progress lines of an attack
_ATTACK_LOGGERS = ("auto-attack", "robust_arch.attacks")


@dataclass(frozen=True)
class Outcome:
    """What an attack did to n examples, all on the CPU.

    Attributes:
        correct: (n,) bool, classified correctly at x'.
        predicted: (n,) classes at x'.
        stable: (n,) bool, the same class at x' as at x; None where it was not measured.
        measures: name to (n,) float64, NaN where not defined: the local Lipschitz forms and `fosc`.
        seconds: of attack and scoring.
        problems: what makes the numbers invalid.
        warnings: of the attack itself.
        x_adv: (n, C, H, W); None where images are not kept.
    """

    correct: Tensor
    predicted: Tensor
    stable: Tensor | None
    measures: dict[str, Tensor]
    seconds: float
    problems: list[str]
    warnings: list[str]
    x_adv: Tensor | None


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A network on its device, the threat it faces, and how its attacks are run.

    attacked: the network that attacks are given, by default `net`; every image that they return is scored by `net`.
    """

    net: nn.Module
    threat: ThreatModel
    device: torch.device
    batch_size: int
    seed: int
    attacked: nn.Module | None = None


@torch.no_grad()
def clean_logits(net: nn.Module, examples: Examples, device: torch.device, batch_size: int) -> Tensor:
    """Logits at the clean images, (n, K) float32 on the CPU, finite or not."""
    net.eval()
    return torch.cat([net(x).float().cpu() for _, x, _, _ in examples.batches(batch_size, device)])


def run_attack(
    scene: Scene,
    examples: Examples,
    named: NamedAttack,
    logits: Tensor,
    blocks: Blocks | None = None,
    *,
    measure: bool = False,
    keep_images: bool = False,
) -> Outcome:
    """Attack every example once and score the returned images.

    An attack that names a block size is called on such blocks instead of batches. Where only correctness is requested,
    images that are misclassified already are not attacked and keep their clean class.

    Args:
        scene: network, threat and device.
        examples: the n images.
        named: the attack.
        logits: (n, K), as of `clean_logits`.
        blocks: where finished batches are stored and read.
        measure: compute stability, local Lipschitz forms and FOSC too.
        keep_images: return the attacked images.

    Raises:
        FloatingPointError: for logits that are not finite, at clean or attacked images.
    """
    _require_finite(logits, "clean")
    scene.net.eval()
    attack = named.attack
    parts: list[Part] = []
    progress = _Progress(named.name, len(examples))
    with watched(log, named.name) as phase:
        for where, x, y, index in examples.batches(attack.block_size or scene.batch_size, scene.device):
            part = blocks.read(where.start) if blocks else None
            if part is None:
                phase.begin(f"{named.name}, images {where.start + 1} to {where.start + len(x)} of {len(examples)}")
                clean = logits[where].to(scene.device)
                part = _attack_batch(scene, attack, x, y, index, clean, measure=measure, keep_images=keep_images)
                if blocks:
                    blocks.add(where.start, part, at_once=attack.block_size is not None)
                progress.computed += len(x)
            parts.append(part)
            progress.log(parts, at_once=attack.block_size is not None)

    def joined(name: str) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(np.concatenate([part[name] for part in parts])))

    notes = [json.loads(str(part["notes"])) for part in parts]
    predicted = joined("predicted")
    return Outcome(
        correct=predicted == examples.images.labels,
        predicted=predicted,
        stable=predicted == logits.argmax(dim=1) if measure else None,
        measures={name.removeprefix("measure_"): joined(name) for name in parts[0] if name.startswith("measure_")},
        seconds=sum(float(part["seconds"]) for part in parts),
        problems=_summarised([problem for note in notes for problem in note["problems"]]),
        warnings=_summarised([warning for note in notes for warning in note["warnings"]]),
        x_adv=joined("x_adv") if keep_images else None,
    )


def _require_finite(logits: Tensor, images: str) -> None:
    if bad := not_finite(logits):
        raise FloatingPointError(f"the logits of {bad} of {len(logits)} {images} images are NaN or infinite")


def _attack_batch(
    scene: Scene,
    attack: Attack,
    x: Tensor,
    y: Tensor,
    index: Tensor,
    logits: Tensor,
    *,
    measure: bool,
    keep_images: bool,
) -> Part:
    started = time.perf_counter()
    predicted = logits.argmax(dim=1)
    chosen = torch.arange(len(y), device=y.device)
    if attack.block_size is None and not (measure or keep_images):
        chosen = (predicted == y).nonzero()[:, 0]
    x = x[chosen]
    with _captured_warnings() as warnings:
        x_adv = attack(scene.attacked or scene.net, x, y[chosen], scene.threat, seed=scene.seed, index=index[chosen])
    problems: list[str] = []
    logits_adv = logits[:0]
    if len(x):
        with torch.no_grad():
            logits_adv = scene.net(x_adv).float()
        _require_finite(logits_adv, "attacked")
        predicted[chosen] = logits_adv.argmax(dim=1)
        problems.extend(after_attack(scene.net, scene.threat, x, x_adv, logits_adv))
    measures = {}
    if measure:
        measures = {form: local_lipschitz(x, x_adv, logits, logits_adv, form) for form in LIPSCHITZ_FORMS}
        measures["fosc"] = fosc(scene.net, x, x_adv, y, scene.threat)
    return {
        "predicted": predicted.cpu().numpy(),
        "correct": (predicted == y).cpu().numpy(),
        **{f"measure_{name}": values.cpu().numpy() for name, values in measures.items()},
        **({"x_adv": x_adv.cpu().numpy()} if keep_images else {}),
        "notes": np.array(json.dumps({"problems": problems, "warnings": warnings})),
        "seconds": np.array(time.perf_counter() - started),
    }


@contextmanager
def _captured_warnings() -> Iterator[list[str]]:
    """The warnings that attacks log inside; they reach the log as well."""
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    loggers = [logging.getLogger(name) for name in _ATTACK_LOGGERS]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield messages
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


class _Progress:
    """Logs how far an attack is and how long it will take, once both are known, and what is left at its end."""

    def __init__(self, name: str, total: int) -> None:
        self.name, self.total, self.computed = name, total, 0
        self._started = self._logged = time.monotonic()

    def log(self, parts: list[Part], *, at_once: bool) -> None:
        """parts: the batches done so far; those found on disk do not count for the remaining time."""
        done = sum(len(part["correct"]) for part in parts)
        correct = sum(int(part["correct"].sum()) for part in parts)
        now = time.monotonic()
        if done == self.total:
            passed = duration(now - self._started)
            percent = 100 * correct / done
            tell(log, "%s: %.1f%% of %d images still correct, after %s", self.name, percent, done, passed)
        elif self.computed and (at_once or now - self._logged >= _NEWS):
            self._logged = now
            left = duration((now - self._started) / self.computed * (self.total - done))
            percent = 100 * correct / done
            tell(log, "%s: %d of %d images, %.1f%% still correct; %s left", self.name, done, self.total, percent, left)


def _summarised(messages: list[str]) -> list[str]:
    """One message of each kind, with its count; messages that differ only in their numbers are of one kind."""
    kinds: dict[str, list[str]] = {}
    for message in messages:
        kinds.setdefault(re.sub(r"\d[\d.]*", "#", message), []).append(message)
    return [same[0] + (f" ({len(same)} such)" if len(same) > 1 else "") for same in kinds.values()]
