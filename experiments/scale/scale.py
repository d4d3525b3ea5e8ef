"""A study past one machine, on paper: what it computes, what it leaves on disk, when it ends.

Each command prints a table and writes it beside this file:

    python -m experiments.scale.scale operations
    python -m experiments.scale.scale passes
    python -m experiments.scale.scale storage results/<study of one run> ...
    python -m experiments.scale.scale bounds
"""

import argparse
import io
import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.scale import passes
from robust_arch.architectures import PRESETS, ArchSpec, cost, numbers_of
from robust_arch.errors import InputError
from robust_arch.runs import StudyFolder
from robust_arch.runs.provenance import provenance
from robust_arch.search import Budget, Space

HERE = Path(__file__).resolve().parent
MEASURED = HERE.parents[1] / "benchmarks" / "results" / "amd-epyc-2-cores-avx512_bf16.json"

RUNS = 1000
EPOCHS = 100  # recipe huang2021
BATCH, TRAIN_IMAGES = 128, 47_500  # conf/data/cifar10.yaml holds 5% of 50,000 out; an incomplete batch is dropped
HELD_OUT = 1000  # selection.images
TEST_IMAGES, CHECKPOINTS = 10_000, 2
IMAGES = EPOCHS * (TRAIN_IMAGES // BATCH) * BATCH
# shares of the test images that stand before each part of AutoAttack: assumed, near the published WRN-34-R (TRADES;
# clean 85.8%, AutoAttack 53.2%; experiments/published.json)
STANDING = {"apgd-ce": 0.86, "apgd-t": 0.57, "fab-t": 0.54, "square": 0.54}
RATES = (20, 50, 100, 200)  # TFLOP/s sustained by one GPU: assumed, none was measured
SHOWN_RATE = 50


def wide(depth: int, widen: int) -> ArchSpec:
    """WRN-depth-widen."""
    return ArchSpec("wide_resnet", ((depth - 4) // 6,) * 3, (16 * widen, 32 * widen, 64 * widen))


NETWORKS: dict[str, ArchSpec] = {
    "WRN-16-1": wide(16, 1),
    "WRN-16-2": wide(16, 2),
    "WRN-16-4": wide(16, 4),
    "ResNet-18": PRESETS["resnet18"],
    "WRN-28-10": wide(28, 10),
    "WRN-34-10": wide(34, 10),
    "WRN-34-12": PRESETS["wrn_34_12"],
    "WRN-34-R": PRESETS["wrn_34_r"],
}


@dataclass(frozen=True)
class Operations:
    """Floating-point operations of one run by part; one multiply-accumulate is two."""

    training: float
    selection: float
    evaluation: float
    autoattack: float

    @property
    def total(self) -> float:
        """Everything."""
        return self.training + self.selection + self.evaluation + self.autoattack


def autoattack_passes(parts: Iterable[str] = STANDING) -> float:
    """What these parts of AutoAttack take per test image at the assumed shares, as passes of the same time."""
    return sum(STANDING[name] * passes.AUTOATTACK_TIME[name] for name in parts)


def operations(macs: int, objective: str) -> Operations:
    """What a run of 100 epochs of CIFAR-10 with both checkpoints evaluated takes at most."""
    tested = 2 * macs * TEST_IMAGES * CHECKPOINTS
    return Operations(
        training=2 * macs * IMAGES * passes.TRAINING[objective],
        selection=2 * macs * EPOCHS * HELD_OUT * passes.SELECTION,
        evaluation=tested * sum(passes.EVALUATION.values()),
        autoattack=tested * autoattack_passes(),
    )


def operations_table() -> pd.DataFrame:
    """One row a network and objective: peta-operations by part, GPU-hours of 1,000 runs at assumed rates."""
    measured = {row["network"]: row for row in json.loads(MEASURED.read_text())["training"]["throughput"]}
    rows = []
    for name, spec in NETWORKS.items():
        costs = cost(spec)
        for objective in passes.TRAINING:
            took = operations(costs.macs, objective)
            row: dict[str, Any] = {"network": name, "objective": objective, "params": costs.params, "macs": costs.macs}
            row |= {f"{part}_pflop": round(value / 1e15, 2) for part, value in vars(took).items()}
            row["total_pflop"] = round(took.total / 1e15, 2)
            images = measured[name]["images_per_second"]["engine"] if name in measured and objective == "sat" else None
            row["cpu_training_hours"] = None if images is None else round(IMAGES / images / 3600, 1)
            hours = {rate: RUNS * took.total / (rate * 1e12) / 3600 for rate in RATES}
            row |= {f"gpu_hours_of_1000_runs_at_{rate}_tflops": round(hours[rate]) for rate in RATES}
            rows.append(row)
    return pd.DataFrame(rows)


def passes_table() -> dict[str, Any]:
    """Passes per image: by hand; for AutoAttack also as counted while the library runs, and by the measured time."""
    counted = passes.counted_autoattack()
    autoattack = {
        name: {"by_hand": hand, "counted": counted[name], "by_time": round(passes.AUTOATTACK_TIME[name])}
        for name, hand in passes.AUTOATTACK.items()
    }
    return {
        "training": passes.TRAINING,
        "selection": passes.SELECTION,
        "evaluation": passes.EVALUATION,
        "autoattack_of_an_image_that_stands": autoattack,
        "autoattack_by_time_at_the_assumed_shares": round(autoattack_passes()),
        "aa_screen_by_time_at_the_assumed_shares": round(autoattack_passes(("apgd-ce", "apgd-t"))),
    }


def checkpoint_bytes(params: int, normalised_channels: int) -> int:
    """Weights and momentum in float32, running mean and variance of each normalised channel."""
    return 8 * params + 8 * normalised_channels


def normalised_channels(spec: ArchSpec) -> int:
    """Channels of all BatchNorm layers of a pre-activation WideResNet: two a block, one at the end."""
    total, before = spec.widths[-1], spec.stem_width
    for depth, width in zip(spec.depths, spec.widths, strict=True):
        total += before + width + (depth - 1) * 2 * width
        before = width
    return total


def storage(study: StudyFolder) -> dict[str, Any]:
    """Files and bytes of a study's runs, by kind; the checkpoint's formula beside its file."""
    runs = list(study.runs())
    kinds: defaultdict[str, list[int]] = defaultdict(list)
    entries = 0
    for run in runs:
        for path in run.path.rglob("*"):
            entries += 1
            if path.is_file() and not path.is_symlink():
                kinds[kind(path.relative_to(run.path))].append(path.stat().st_size)
    facts = runs[0].read().facts
    if facts is None:
        raise InputError(f"study = {str(study.path)!r}: a study whose first run has a status.json")
    found = {
        "study": study.name,
        "runs": len(runs),
        "epochs": facts.epochs,
        "files_a_run": sum(map(len, kinds.values())) / len(runs),
        "inodes_a_run": 1 + entries / len(runs),  # with folders, links and the run's own folder
        "bytes_a_run": {name: round(sum(sizes) / len(runs)) for name, sizes in sorted(kinds.items())},
    }
    last = runs[0].checkpoint("last")
    if last.is_file() and facts.depths and facts.widths:
        spec = ArchSpec("wide_resnet", numbers_of(facts.depths), numbers_of(facts.widths))
        formula = checkpoint_bytes(facts.params, normalised_channels(spec))
        size = last.stat().st_size
        found["checkpoint"] = {"params": facts.params, "bytes": size, "formula": formula, "more": size - formula}
    return found


def kind(path: Path) -> str:
    """What a file of a run is for: checkpoints, wandb or records."""
    return path.parts[0] if path.parts[0] in ("checkpoints", "wandb") else "records"


def evaluation_arrays_bytes(images: int, attacks: int) -> int:
    """A compressed .npz of an evaluation, its booleans by fair coins, which compress worst."""
    generator = np.random.default_rng(0)
    arrays = {str(name): generator.random(images) < 0.5 for name in range(attacks + 1)}
    handle = io.BytesIO()
    np.savez_compressed(handle, index=np.arange(images), **arrays)  # type: ignore[arg-type]
    return len(handle.getvalue())


def shares(parts: int = 30) -> tuple[tuple[float, ...], ...]:
    """All divisions over three stages in steps of 1 / parts, each stage with at least one step."""
    pairs = [(i, j) for i in range(1, parts - 1) for j in range(1, parts - i)]
    return tuple((i / parts, j / parts, (parts - i - j) / parts) for i, j in pairs)


def plans() -> dict[str, list[int]]:
    """MACs of the first 1,000 runs (architectures in the plan's order, three seeds each) of three plans."""
    template = ArchSpec("wide_resnet", (5, 5, 5), (16, 32, 64))
    divided = Space(template=template, depths=((5,), (5,), (5,)), shares=shares())
    widths = ((16, 64, 160, 192), (32, 128, 320, 384), (64, 256, 640, 768))
    grid = Space(template=template, depths=((2, 5), (2, 5), (2, 5)), widths=widths)
    spaces = {
        "66.5 M parameters": (divided, Budget(params=66_500_000)),
        "9.58 G MACs": (divided, Budget(macs=9_580_000_000)),
        "no budget, a grid": (grid, Budget()),
    }
    found = {}
    for name, (space, budget) in spaces.items():
        members = space.members(budget, 10, (3, 32, 32)).specs
        found[name] = [cost(spec).macs for spec in members for _ in range(3)][:RUNS]
    return found


def run_seconds(macs: Sequence[int], tflops: float, objective: str = "sat") -> list[float]:
    """Seconds of each run on one GPU at an assumed sustained rate, AutoAttack left out."""
    found = [operations(one, objective) for one in macs]
    return [(took.total - took.autoattack) / (tflops * 1e12) for took in found]


def bounds(seconds: Sequence[float], workers: int) -> tuple[float, float]:
    """Between which the last run ends where each goes, in any order, to the worker that is free first (Graham 1966).

    No order ends before an equal share of all the work, or the longest run. A run that ends last began when no worker
    was free, so the other runs kept every worker busy until then.
    """
    share, longest = sum(seconds) / workers, max(seconds)
    return max(share, longest), share + (1 - 1 / workers) * longest


def bounds_table() -> pd.DataFrame:
    """Plans by workers: days at an assumed rate, at least and at most."""
    rows = []
    for name, macs in plans().items():
        seconds = run_seconds(macs, SHOWN_RATE)
        for workers in (8, 32, 128):
            least, most = bounds(seconds, workers)
            rows.append(
                {
                    "plan": name,
                    "runs": len(seconds),
                    "least_gmacs": round(min(macs) / 1e9, 2),
                    "mean_gmacs": round(statistics.mean(macs) / 1e9, 2),
                    "most_gmacs": round(max(macs) / 1e9, 2),
                    "longest_over_mean": round(max(seconds) / statistics.mean(seconds), 2),
                    "workers": workers,
                    f"least_days_at_{SHOWN_RATE}_tflops": round(least / 86_400, 2),
                    f"most_days_at_{SHOWN_RATE}_tflops": round(most / 86_400, 2),
                    "most_over_least": round(most / least, 3),
                }
            )
    return pd.DataFrame(rows)


def write(name: str, content: pd.DataFrame | dict[str, Any] | list[Any]) -> None:
    """Beside this file, and to the screen."""
    if isinstance(content, pd.DataFrame):
        text, path = content.to_csv(index=False), HERE / f"{name}.csv"
        print(content.to_string(index=False))
    else:
        text, path = json.dumps(content, indent=2) + "\n", HERE / f"{name}.json"
        print(text)
    path.write_text(text, encoding="utf-8")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("operations", "passes", "bounds"):
        commands.add_parser(name)
    commands.add_parser("storage").add_argument("studies", nargs="+", type=Path)
    asked = parser.parse_args()
    if asked.command == "operations":
        write("operations", operations_table())
    elif asked.command == "passes":
        write("passes", passes_table())
    elif asked.command == "storage":
        more = {
            "provenance": provenance(),
            "npz_bytes_of_10000_images_and_4_attacks": evaluation_arrays_bytes(TEST_IMAGES, 4),
        }
        write("storage", [*(storage(StudyFolder(path)) for path in asked.studies), more])
    else:
        write("bounds", bounds_table())


if __name__ == "__main__":
    main()
