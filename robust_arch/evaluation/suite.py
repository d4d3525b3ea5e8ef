"""Run what an evaluation requests and is not recorded yet."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from robust_arch.architectures import Classifier
from robust_arch.architectures.build import weight_layout
from robust_arch.attacks import PGD, ThreatModel
from robust_arch.common.files import replacing
from robust_arch.common.progress import prefixed, tell, watched
from robust_arch.engine import AttackableNetwork
from robust_arch.evaluation.checks import Check, preflight
from robust_arch.evaluation.examples import Examples
from robust_arch.evaluation.gradient_masking import diagnose
from robust_arch.evaluation.record import EvaluationRecord
from robust_arch.evaluation.saved_batches import Blocks
from robust_arch.evaluation.scoring import Scene, clean_logits, run_attack
from robust_arch.evaluation.settings import EvaluationSettings, NamedAttack
from robust_arch.evaluation.smoothness import stage_smoothness
from robust_arch.runs.records import SMOOTHNESS_ATTACK

log = logging.getLogger(__name__)


def extend(
    record: EvaluationRecord,
    net: Classifier,
    settings: EvaluationSettings,
    threat: ThreatModel,
    device: torch.device,
    about: Mapping[str, Any],
    *,
    fold: bool = True,
    checks: Sequence[Check] = (),
) -> None:
    """Compute what `record` lacks and write it after each part; `net` is on `device`, in float32.

    A check that fails ends the evaluation, and the record says why. about: command and provenance, for the record.
    checks: of the caller, recorded before this evaluation's own. fold: attacks see BatchNorm folded into convolutions;
    their images are scored by `net` itself.
    """
    if record.is_complete(settings):
        return
    # robust accuracy is of float32: TensorFloat-32 keeps ten bits of each factor
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    net.eval().to(memory_format=weight_layout(net))
    with prefixed(record.described):
        scene = Scene(
            net=net,
            threat=threat,
            device=device,
            batch_size=settings.batch_size,
            seed=settings.seed,
            attacked=AttackableNetwork(net) if fold else None,
        )
        missing = list(record.missing(settings))
        tell(log, "evaluation on %d test images: %s", len(record.examples), ", ".join(["clean", *missing]))
        with watched(log, "clean accuracy and checks"):
            logits = clean_logits(net, record.examples, device, settings.batch_size)
            checks = [*checks, *preflight(net, record.examples, logits, threat, device)]
        clean = logits.argmax(dim=1) == record.examples.images.labels
        record.add_clean(clean, checks, {**about, "device": str(device)})
        suite = _Suite(record, net, scene, settings, logits)
        for name in missing:
            if not record.invalid:
                suite.run(name)
        record.remove_blocks()


class _Suite:
    """The parts of one evaluation. logits: (n, K) at the clean images."""

    def __init__(
        self, record: EvaluationRecord, net: Classifier, scene: Scene, settings: EvaluationSettings, logits: Tensor
    ) -> None:
        self.record, self.net, self.scene, self.settings, self.logits = record, net, scene, settings, logits

    def run(self, name: str) -> None:
        """One of the names that `EvaluationRecord.missing` gives."""
        scene, settings = self.scene, self.settings
        how: dict[str, Any] = {"device": scene.device, "batch_size": scene.batch_size, "seed": scene.seed}
        if name == "diagnostics":
            examples = self.record.examples.sample(settings.diagnostics or 0)
            with watched(log, f"{name} on {len(examples)} images"):
                found = diagnose(self.net, examples, scene.threat, **how)
            self.record.add_part(name, found, len(examples), scene.seed)
        elif name == "smoothness":
            examples, attack = self.record.examples.sample(settings.smoothness or 0), PGD(steps=20, rel_step_size=0.1)
            with watched(log, f"{name} on {len(examples)} images"):
                found = stage_smoothness(self.net, examples, attack, scene.threat, **how)
            self.record.add_part(name, found, len(examples), scene.seed)
        elif settings.cascade and name == settings.cascade_name:
            self._cascade()
        else:
            self._attack(next(named for named in settings.attacks if named.name == name))

    def _attack(self, named: NamedAttack) -> None:
        keep, measure = self.settings.save_images, named.name == SMOOTHNESS_ATTACK
        blocks = self._blocks(named, self.record.examples, measure=measure, images=keep)
        outcome = run_attack(
            self.scene, self.record.examples, named, self.logits, blocks, measure=measure, keep_images=keep
        )
        if outcome.x_adv is not None:
            outcome.problems.extend(self._save_images(named, outcome.x_adv, outcome.predicted))
        self.record.add_attack(named, self.scene.seed, outcome)
        blocks.remove()

    def _blocks(self, named: NamedAttack, examples: Examples, *, measure: bool, images: bool) -> Blocks:
        identity = {
            "attack": named.name,
            "settings": named.settings,
            "implementation": named.attack.implementation,
            "seed": self.scene.seed,
            "batch": named.attack.block_size or self.scene.batch_size,
            "examples": examples.images.fingerprint(),
            "holds": [measure, images],
        }
        return Blocks(self.record.folder, self.record.eval_id, identity)

    @torch.no_grad()
    def _save_images(self, named: NamedAttack, x_adv: Tensor, predicted: Tensor) -> list[str]:
        """Write clean and attacked images, labels and predictions; returns what is wrong if the file's differ."""
        path = self.record.images_path(named.name)
        examples = self.record.examples
        about = {"attack": named.name, "threat": str(self.scene.threat), "seed": str(self.scene.seed)}
        about["max_value"] = str(examples.images.max_value)
        tensors = {
            "x_adv": x_adv,
            "x": examples.images.images[slice(len(examples))].contiguous(),
            "index": examples.index,
            "label": examples.images.labels,
            "predicted": predicted,
        }
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata=about)
        # in the batches in which they were attacked
        parts = torch.split(load_file(path)["x_adv"], named.attack.block_size or self.scene.batch_size)
        classes = torch.cat([self.scene.net(x.to(self.scene.device)).argmax(dim=1).cpu() for x in parts])
        different = int((classes != predicted).sum())
        return [f"{different} of the saved images are classified differently from the attacked ones"] * (different > 0)

    def _cascade(self) -> None:
        """Each attack on the survivors of those before it; one that is recorded on every example is not run again."""
        standing = torch.from_numpy(self.record.arrays["clean"].copy())
        stages, unfinished = [], []
        for named in self.settings.cascade:
            attacked = standing.nonzero()[:, 0]
            stage: dict[str, Any] = {"attack": named.name, "attacked": len(attacked), "seconds": 0.0}
            stage |= {"problems": [], "warnings": []}
            if self.record.has(named, self.scene.seed):
                standing &= torch.from_numpy(self.record.arrays[named.name])
                stage["recorded_on_all"] = True
            elif len(attacked):
                examples = self.record.examples.subset(attacked)
                blocks = self._blocks(named, examples, measure=False, images=False)
                unfinished.append(blocks)
                outcome = run_attack(self.scene, examples, named, self.logits[attacked], blocks)
                standing[attacked] = outcome.correct
                stage["seconds"] = round(outcome.seconds, 3)
                stage["problems"] = [f"{named.name}: {problem}" for problem in outcome.problems]
                stage["warnings"] = [f"{named.name}: {warning}" for warning in outcome.warnings]
            stages.append({**stage, "standing": int(standing.sum())})
            if stage["problems"]:  # the record is invalid: nothing more is computed for it
                break
        self.record.add_cascade(self.settings, standing, stages)
        for blocks in unfinished:
            blocks.remove()
