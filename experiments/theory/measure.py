"""How bound and measured change move with the last stage's width and depth: writes measured.csv, from trained runs.

Usage: python -m experiments.theory.measure results/theory
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from experiments.theory.smoothness_columns import smoothness_columns
from robust_arch.analysis.decomposition import decomposition
from robust_arch.architectures import ArchSpec, Classifier, arch_name, build, cost
from robust_arch.attacks import PGD, ThreatModel
from robust_arch.common.randomness import derive
from robust_arch.data.digits import Digits
from robust_arch.errors import InputError
from robust_arch.evaluation import Examples, NamedAttack, select_examples
from robust_arch.evaluation.scoring import Scene, clean_logits, run_attack
from robust_arch.evaluation.smoothness import stage_smoothness
from robust_arch.interop.checkpoint import LoadedCheckpoint, load_checkpoint
from robust_arch.runs import RunFolder, open_study
from robust_arch.runs.records import SMOOTHNESS_ATTACK

RECORD = Path(__file__).with_name("measured.csv")
BATCH = 360
DIGITS = 6  # significant ones that are written


def initial_network(spec: ArchSpec, loaded: LoadedCheckpoint, seed: int) -> Classifier:
    """The network that the run with this seed started from, in evaluation mode: BatchNorm has seen nothing yet."""
    normalize = loaded.net.normalize
    net = build(
        spec,
        loaded.card["num_classes"],
        tuple(loaded.card["image_shape"]),
        mean=normalize.mean.flatten().tolist(),
        std=normalize.std.flatten().tolist(),
        seed=derive(seed, "initialisation"),
    )
    return net.eval()


def measured(net: Classifier, examples: Examples, threat: ThreatModel) -> dict[str, Any]:
    """Every number of one row, on the same examples under the same pgd20; accuracies in percent."""
    attack, cpu = PGD(steps=20, rel_step_size=0.1), torch.device("cpu")
    logits = clean_logits(net, examples, cpu, BATCH)
    scene = Scene(net=net, threat=threat, device=cpu, batch_size=BATCH, seed=0)
    outcome = run_attack(scene, examples, NamedAttack(SMOOTHNESS_ATTACK, attack, {}), logits, measure=True)
    correct = logits.argmax(dim=1) == examples.images.labels
    assert outcome.stable is not None
    return {
        "n_test": len(examples),
        "clean_acc": _percent(correct),
        f"{SMOOTHNESS_ATTACK}_acc": _percent(correct & outcome.correct),
        "stability": _percent(outcome.stable),
        "lipschitz": float(outcome.measures["l1_linf"].nanmean()),
        "lipschitz_kl": float(outcome.measures["kl"].nanmean()),
        "lipschitz_l2": float(outcome.measures["l2"].nanmean()),
        "margin": float(margins(logits).mean()),
        **smoothness_columns(
            stage_smoothness(net, examples, attack, threat, device=cpu, batch_size=BATCH, seed=scene.seed)
        ),
    }


def margins(logits: Tensor) -> Tensor:
    """The largest logit minus the second largest. logits: (n, K). Returns (n,) float64."""
    largest, _ = logits.double().topk(2, dim=1)
    return largest[:, 0] - largest[:, 1]


def _percent(flags: Tensor) -> float:
    return 100 * int(flags.sum()) / len(flags)


def run_rows(run: RunFolder, examples: Examples) -> Iterator[dict[str, Any]]:
    """One row before training and one after it, at the best epoch."""
    loaded = load_checkpoint(run.checkpoint("best"))
    spec, facts = loaded.spec, run.read().facts
    if facts is None or facts.seed is None or not isinstance(spec, ArchSpec):
        raise InputError(f"run = {str(run.path)!r}: a run of a family whose status.json has a seed")
    threat = ThreatModel(**run.recorded_config["threat"])
    shared = {
        "run_id": run.run_id,
        "arch": arch_name(spec),
        "depths": spec.depths_text,
        "widths": spec.widths_text,
        "last_width": spec.widths[-1],
        "last_depth": spec.depths[-1],
        "params": cost(spec, loaded.card["num_classes"], tuple(loaded.card["image_shape"])).params,
        "seed": facts.seed,
        "threat": str(threat),
    }
    yield {**shared, "state": "initial", **measured(initial_network(spec, loaded, facts.seed), examples, threat)}
    yield {**shared, "state": "trained", **measured(loaded.net.eval(), examples, threat)}


def table(study: Path) -> pd.DataFrame:
    """Two rows a completed run, by last width, last depth and seed."""
    examples = select_examples(Digits(name="digits").read()[1], None)
    rows = [row for run in open_study(study).runs() if run.state == "completed" for row in run_rows(run, examples)]
    frame = pd.DataFrame(rows)
    return frame.join(decomposition(frame)).sort_values(["last_width", "last_depth", "seed", "state"])


def main() -> None:
    """The command."""
    torch.set_num_threads(1)
    table(Path(sys.argv[1])).to_csv(RECORD, index=False, float_format=f"%.{DIGITS}g")


if __name__ == "__main__":
    main()
