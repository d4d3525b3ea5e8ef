"""A study past one machine, on paper: what it computes, what it leaves on disk, when it ends.

Each command prints a table and writes it beside this file:

    python -m experiments.scale.scale operations
    python -m experiments.scale.scale passes
    python -m experiments.scale.scale storage results/<study of one run> ...
    python -m experiments.scale.scale check results/<study>
    python -m experiments.scale.scale makespan
"""

import argparse
import io
import itertools
import json
import random
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.scale import passes
from experiments.scale import schedule as schedules
from robust_arch.architectures import PRESETS, ArchSpec, cost
from robust_arch.runs import RunFolder, StudyFolder
from robust_arch.runs.provenance import provenance
from robust_arch.search import Budget, Space

HERE = Path(__file__).resolve().parent
MEASURED = HERE.parents[1] / "benchmarks" / "training.json"

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


def operations(macs: int, objective: str) -> Operations:
    """What a run of 100 epochs of CIFAR-10 with both checkpoints evaluated takes at most."""
    tested = 2 * macs * TEST_IMAGES * CHECKPOINTS
    return Operations(
        training=2 * macs * IMAGES * passes.TRAINING[objective],
        selection=2 * macs * EPOCHS * HELD_OUT * passes.SELECTION,
        evaluation=tested * sum(passes.EVALUATION.values()),
        autoattack=tested * sum(STANDING[name] * count for name, count in passes.AUTOATTACK.items()),
    )


def operations_table() -> pd.DataFrame:
    """One row a network and objective: peta-operations by part, GPU-hours of 1,000 runs at assumed rates."""
    measured = {row["network"]: row for row in json.loads(MEASURED.read_text())["throughput"]}
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
    """Passes an image: by hand, and for AutoAttack as counted while the library runs."""
    counted = passes.counted_autoattack()
    autoattack = {name: {"by_hand": hand, "counted": counted[name]} for name, hand in passes.AUTOATTACK.items()}
    return {
        "training": passes.TRAINING,
        "selection": passes.SELECTION,
        "evaluation": passes.EVALUATION,
        "autoattack_of_an_image_that_stands": autoattack,
        "autoattack_at_the_assumed_shares": round(sum(STANDING[key] * n for key, n in passes.AUTOATTACK.items())),
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
    facts = runs[0].status["run"]
    found = {
        "study": study.name,
        "runs": len(runs),
        "epochs": facts["epochs"],
        "files_a_run": sum(map(len, kinds.values())) / len(runs),
        "inodes_a_run": 1 + entries / len(runs),  # with folders, links and the run's own folder
        "bytes_a_run": {name: round(sum(sizes) / len(runs)) for name, sizes in sorted(kinds.items())},
    }
    last = runs[0].checkpoint("last")
    if last.is_file():
        depths, widths = (tuple(map(int, facts[key].split("-"))) for key in ("depths", "widths"))
        formula = checkpoint_bytes(facts["params"], normalised_channels(ArchSpec("wide_resnet", depths, widths)))
        size = last.stat().st_size
        found["checkpoint"] = {"params": facts["params"], "bytes": size, "formula": formula, "more": size - formula}
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


@dataclass(frozen=True)
class Recorded:
    """A run as it happened: when it began and ended, in seconds since the study's first line, and in which process."""

    run_id: str
    macs: int
    process: int
    start: float
    end: float


def recorded(study: StudyFolder) -> list[Recorded]:
    """The runs in the plan's order, from the first and last line of each train.log."""
    found = []
    for row in study.read_plan():
        run = study.run(row["run_id"])
        first, last = (moment.timestamp() for moment in _first_and_last(run))
        found.append(Recorded(run.run_id, int(row["macs"]), int(run.status["pid"]), first, last))
    begin = min(run.start for run in found)
    return [Recorded(run.run_id, run.macs, run.process, run.start - begin, run.end - begin) for run in found]


def _first_and_last(run: RunFolder) -> tuple[datetime, datetime]:
    moments = [line[:23] for line in run.log.read_text(encoding="utf-8").splitlines() if line[:2] == "20"]
    first, last = (datetime.strptime(moment, "%Y-%m-%d %H:%M:%S,%f") for moment in (moments[0], moments[-1]))
    return first, last


def gaps(runs: Sequence[Recorded]) -> Iterator[float]:
    """Seconds between the end of a run and the start of the next in the same process."""
    for process in {run.process for run in runs}:
        own = sorted((run for run in runs if run.process == process), key=lambda run: run.start)
        yield from (later.start - earlier.end for earlier, later in itertools.pairwise(own))


def check(study: StudyFolder, wall: float | None) -> dict[str, Any]:
    """The simulator against a study that was run: its makespan, and when each run began."""
    runs = recorded(study)
    seconds = [run.end - run.start for run in runs]
    workers = len({run.process for run in runs})
    measured, between = max(run.end for run in runs), statistics.median(gaps(runs))
    plain = schedules.schedule(seconds, workers)
    spaced = schedules.schedule(seconds, workers, between)
    apart = [abs(part.start - run.start) for part, run in zip(spaced, runs, strict=True)]
    return {
        "runs": len(runs),
        "workers": workers,
        "seconds_of_a_run": [round(min(seconds), 2), round(max(seconds), 2)],
        "sum_of_runs": round(sum(seconds), 1),
        "measured_makespan": round(measured, 1),
        "whole_command": wall,
        "lower_bound": round(schedules.lower_bound(seconds, workers), 1),
        "simulated": round(schedules.makespan(plain), 1),
        "median_gap": round(between, 2),
        "simulated_with_the_gap": round(schedules.makespan(spaced), 1),
        "simulated_over_measured": round(schedules.makespan(plain) / measured, 4),
        "simulated_with_the_gap_over_measured": round(schedules.makespan(spaced) / measured, 4),
        "largest_difference_of_a_start": round(max(apart), 1),
        "correlation_of_seconds_with_macs": round(float(np.corrcoef(seconds, [run.macs for run in runs])[0, 1]), 3),
    }


def runs_table(study: StudyFolder) -> pd.DataFrame:
    """The runs as they happened; processes are numbered by when they began."""
    frame = pd.DataFrame(recorded(study)).round(2)
    order = frame.sort_values("start")["process"].unique().tolist()
    return frame.assign(process=frame["process"].map(order.index))


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


def makespan_table() -> pd.DataFrame:
    """Plans by workers: the makespan in plan order and longest first, over what no order can beat."""
    rows = []
    for name, macs in plans().items():
        seconds = run_seconds(macs, SHOWN_RATE)
        for workers in (8, 32, 128):
            bound = schedules.lower_bound(seconds, workers)
            own, sorted_ = (
                schedules.makespan(schedules.schedule(order, workers))
                for order in (seconds, schedules.longest_first(seconds))
            )
            rows.append(
                {
                    "plan": name,
                    "runs": len(seconds),
                    "least_gmacs": round(min(macs) / 1e9, 2),
                    "mean_gmacs": round(statistics.mean(macs) / 1e9, 2),
                    "most_gmacs": round(max(macs) / 1e9, 2),
                    "longest_over_mean": round(max(seconds) / statistics.mean(seconds), 2),
                    "workers": workers,
                    f"days_at_{SHOWN_RATE}_tflops": round(own / 86_400, 2),
                    "plan_order_over_bound": round(own / bound, 3),
                    "longest_first_over_bound": round(sorted_ / bound, 3),
                }
            )
    return pd.DataFrame(rows)


def disturbed_table(repetitions: int = 10) -> pd.DataFrame:
    """The plan of 66.5 M parameters on 32 workers under preemptions and failures; means over repetitions."""
    seconds = run_seconds(plans()["66.5 M parameters"], SHOWN_RATE)
    undisturbed = schedules.makespan(schedules.schedule(seconds, 32))
    epoch, batch = statistics.mean(seconds) / EPOCHS, 1.0
    rows = []
    cases = [(hours, unit, 0) for hours in (24, 6, 2) for unit in ("batch", "epoch")] + [(0, "epoch", 500)]
    for hours, unit, failing in cases:
        outcomes = []
        for seed in range(repetitions):
            draw = random.Random(seed)
            disturbances = schedules.Disturbances(
                until_preemption=_exponential(draw, hours),
                until_failure=_exponential(draw, failing),
                unit=epoch if unit == "epoch" else batch,
                pause=600,
                startup=30,
            )
            outcomes.append(schedules.disturbed(seconds, 32, disturbances))
        rows.append(
            {
                "hours_between_preemptions": hours or None,
                "hours_between_failures": failing or None,
                "kept_by": unit,
                "preemptions": round(statistics.mean(one.preemptions for one in outcomes)),
                "failures": round(statistics.mean(one.failures for one in outcomes)),
                "lost_gpu_hours": round(statistics.mean(one.lost for one in outcomes) / 3600, 1),
                "makespan_over_undisturbed": round(statistics.mean(one.makespan for one in outcomes) / undisturbed, 3),
                "runs_undone": round(statistics.mean(len(one.undone) for one in outcomes), 1),
            }
        )
    return pd.DataFrame(rows)


def _exponential(draw: random.Random, hours: float) -> Any:
    return (lambda: draw.expovariate(1 / (hours * 3600))) if hours else (lambda: schedules.NEVER)


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
    for name in ("operations", "passes", "makespan"):
        commands.add_parser(name)
    commands.add_parser("storage").add_argument("studies", nargs="+", type=Path)
    checked = commands.add_parser("check")
    checked.add_argument("study", type=Path)
    checked.add_argument("--wall", type=float, help="seconds that the whole command took")
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
    elif asked.command == "check":
        write("check", {**check(StudyFolder(asked.study), asked.wall), "provenance": provenance()})
        write("check_runs", runs_table(StudyFolder(asked.study)))
    else:
        write("makespan", makespan_table())
        write("disturbed", disturbed_table())


if __name__ == "__main__":
    main()
