"""What training costs: the engine against a reference loop, in one run; `make bench` calls it.

Writes the part `training` of this machine's results. Both sides run in turn, each in a process of its own,
and a ratio is the median over pairs. Ratios of one run can be compared; seconds of different machines cannot.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from arms import (
    OBJECTIVES,
    Arm,
    compile_into,
    engine_evaluation,
    engine_loading,
    engine_steps,
    matmul_rate,
    medians,
    peak_mib,
    reference_evaluation,
    reference_loading,
    reference_steps,
)
from machine import read_part, write_part

from robust_arch.architectures import ArchSpec, cost
from robust_arch.engine import decide_precision
from robust_arch.runs.provenance import provenance

# depths, widths, batch size, measured steps, pairs
NETWORKS: dict[str, tuple[tuple[int, ...], tuple[int, ...], int, int, int]] = {
    "WRN-16-1": ((2, 2, 2), (16, 32, 64), 128, 3, 5),
    "WRN-16-2": ((2, 2, 2), (32, 64, 128), 128, 2, 3),
    "WRN-16-4": ((2, 2, 2), (64, 128, 256), 64, 2, 3),
    "WRN-34-10": ((5, 5, 5), (160, 320, 640), 8, 1, 1),
}
SMOKE = {"tiny": ((1, 1, 1), (8, 8, 8), 8, 1, 1)}
PARTS = ("throughput", "objectives", "switches", "evaluation", "loading", "overhead", "batch_sizes", "two_processes")
PASSES = 10 * 2 + 3  # of a step of SAT: ten times forward and to the images, once forward, to images and to weights


def per_step(times: list[list[float]]) -> list[float]:
    """The median step of each run."""
    return [statistics.median(run) for run in times]


def throughput(name: str, shape: tuple[Any, ...], rate: float) -> dict[str, Any]:
    """(a), (b) and (f): images a second of both sides, share of the matrix product's rate, memory."""
    depths, widths, batch_size, steps, pairs = shape
    asked = {"depths": depths, "widths": widths, "batch_size": batch_size, "steps": steps, "warm_up": 1}
    with Arm() as engine, Arm() as plain:
        times = [
            (plain(reference_steps, **asked), engine(engine_steps, **{**asked, "steps": steps + 1}))
            for _ in range(pairs)
        ]
        memory = {"reference": plain(peak_mib), "engine": engine(peak_mib)}
    of_reference, of_engine = (per_step(list(side)) for side in zip(*times, strict=True))
    costs = cost(ArchSpec("wide_resnet", depths, widths))
    ratios = [slow / fast for slow, fast in zip(of_reference, of_engine, strict=True)]
    achieved = 2 * costs.macs * PASSES * batch_size / statistics.median(of_engine) / 1e12
    return {
        "network": name,
        "params": costs.params,
        "macs": costs.macs,
        "batch_size": batch_size,
        "pairs": pairs,
        "images_per_second": {
            "reference": round(batch_size / statistics.median(of_reference), 2),
            "engine": round(batch_size / statistics.median(of_engine), 2),
        },
        "times_faster": {key: round(value, 2) for key, value in medians(ratios).items()},
        "tflops": round(achieved, 4),
        "share_of_matmul": round(achieved / rate, 3),
        "peak_mib": memory,
    }


def objectives(networks: dict[str, tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Each objective against the reference's, on each network."""
    found = []
    for name, (depths, widths, batch_size, steps, pairs) in networks.items():
        for objective in OBJECTIVES:
            asked = {"depths": depths, "widths": widths, "batch_size": batch_size, "objective": objective, "warm_up": 1}
            with Arm() as engine, Arm() as plain:
                times = [
                    (plain(reference_steps, steps=steps, **asked), engine(engine_steps, steps=steps + 1, **asked))
                    for _ in range(pairs)
                ]
            sides = [per_step(list(side)) for side in zip(*times, strict=True)]
            rates = [round(batch_size / statistics.median(side), 2) for side in sides]
            ratios = medians([slow / fast for slow, fast in zip(*sides, strict=True)])
            found.append(
                {
                    "network": name,
                    "objective": objective,
                    "batch_size": batch_size,
                    "pairs": pairs,
                    "images_per_second": dict(zip(("reference", "engine"), rates, strict=True)),
                    "times_faster": {key: round(value, 2) for key, value in ratios.items()},
                }
            )
    return found


def switches(shape: tuple[Any, ...]) -> dict[str, Any]:
    """Images a second as one switch after the other is turned on, in turn."""
    depths, widths, batch_size, steps, pairs = shape
    off = {
        "precision": "32",
        "fold": False,
        "channels_last": False,
        "keep_memory": False,
        "compile": False,
        "data": "stream",
    }
    ladder: dict[str, dict[str, Any]] = {"plain": dict(off)}
    for key, value in (("keep_memory", True), ("channels_last", True), ("fold", True), ("precision", "bf16-mixed")):
        off = {**off, key: value}
        ladder[f"{key}={str(value).lower()}"] = dict(off)
    ladder |= {"compile=true": {**off, "compile": True}, "compile=step": {**off, "compile": "step"}}
    asked = {"depths": depths, "widths": widths, "batch_size": batch_size, "steps": steps + 1}
    arms = {name: Arm() for name in ladder}
    cache = tempfile.TemporaryDirectory()
    for name, folder in (("compile=true", "true"), ("compile=step", "step")):
        arms[name](compile_into, folder=f"{cache.name}/{folder}")
    found: dict[str, list[list[float]]] = {name: [] for name in ladder}
    first: dict[str, float] = {}
    for number in range(pairs):
        for name, settings in ladder.items():
            started = time.perf_counter()
            found[name].append(arms[name](engine_steps, **asked, warm_up=1, **settings))
            if not number:
                first[name] = time.perf_counter() - started
    for arm in arms.values():
        arm.__exit__()
    cache.cleanup()
    rates = {name: round(batch_size / statistics.median(per_step(times)), 1) for name, times in found.items()}
    # of the first run that compiles, with an empty cache
    extra = first["compile=true"] - first["precision=bf16-mixed"]
    return {"images_per_second": rates, "seconds_more_for_the_first_compiled_run": round(extra, 1)}


def evaluation(shape: tuple[Any, ...], n: int, pairs: int) -> dict[str, Any]:
    """(c): pgd20 with its measures, and cw40."""
    depths, widths = shape[:2]
    found = {}
    with Arm() as engine, Arm() as plain:
        for name, margin in (("pgd20", False), ("cw40", True)):
            asked = {"depths": depths, "widths": widths, "n": n, "margin": margin}
            times = [(plain(reference_evaluation, **asked), engine(engine_evaluation, **asked)) for _ in range(pairs)]
            ratios = [slow / fast for slow, fast in times]
            seconds = [round(statistics.median(side), 2) for side in zip(*times, strict=True)]
            spread = {key: round(value, 2) for key, value in medians(ratios).items()}
            found[name] = {"seconds": dict(zip(("reference", "engine"), seconds, strict=True)), "times_faster": spread}
    return {"n": n, **found}


def loading(n: int, pairs: int) -> dict[str, Any]:
    """(d): images a second, cut and augmented."""
    with Arm() as engine, Arm() as plain:
        times = [
            (plain(reference_loading, n=n, batch_size=128), engine(engine_loading, n=n, batch_size=128))
            for _ in range(pairs)
        ]
    seconds = [statistics.median(side) for side in zip(*times, strict=True)]
    return {"n": n, "images_per_second": {"reference": round(n / seconds[0]), "engine": round(n / seconds[1])}}


def overhead(runs: int) -> dict[str, Any]:
    """(e): seconds that one more run adds to a sweep beside its training, which is one step here."""

    def sweep(count: int, folder: str) -> float:
        seeds = ",".join(map(str, range(count)))
        small = ["arch.depths=[1,1,1]", "arch.widths=[8,8,8]", "trainer.max_epochs=1", "trainer.limit_train_batches=1"]
        few = ["evaluate.attacks=[]", "selection.images=10", "logger=csv", "hydra/sweeper=budget", "recipe=digits"]
        command = [sys.executable, "-m", "robust_arch.train", "-m", *small, *few, f"results_dir={folder}/{count}"]
        started = time.perf_counter()
        subprocess.run([*command, f"search.seeds=[{seeds}]"], check=True, capture_output=True)
        return time.perf_counter() - started

    with tempfile.TemporaryDirectory() as warm_up, tempfile.TemporaryDirectory() as folder:
        sweep(1, warm_up)
        one, many = sweep(1, folder), sweep(1 + runs, folder)
    return {"seconds_a_further_run": round((many - one) / runs, 2), "seconds_of_a_sweep_of_one": round(one, 1)}


def batch_sizes(shape: tuple[Any, ...], sizes: tuple[int, ...], pairs: int) -> dict[str, Any]:
    """(g): images a second at several batch sizes."""
    depths, widths = shape[:2]
    found: dict[int, list[float]] = {size: [] for size in sizes}
    with Arm() as engine:
        for _ in range(pairs):
            for size in sizes:
                asked = {"depths": depths, "widths": widths, "batch_size": size, "steps": 3, "warm_up": 1}
                found[size] += per_step([engine(engine_steps, **asked)])
    return {"images_per_second": {str(size): round(size / statistics.median(times)) for size, times in found.items()}}


def two_processes(widths: str, batches: int) -> dict[str, Any]:
    """(g): one process on all cores against two that share them; the second epoch, with validation and checkpoint.

    batches: an epoch, at most those of 64 of the digits that are trained on.
    """

    def rate(devices: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(
                [
                    sys.executable, "-m", "robust_arch.train", "arch.depths=[2,2,2]", f"arch.widths={widths}",
                    "trainer.accelerator=cpu", f"trainer.devices={devices}", "trainer.max_epochs=2",
                    f"trainer.threads={torch.get_num_threads() // devices or 1}", "evaluate.attacks=[]",
                    f"trainer.limit_train_batches={batches}", "recipe=digits", "data=digits",
                    f"results_dir={folder}", "logger=csv", "selection.images=10",
                ],
                check=True, capture_output=True,
            )  # fmt: skip
            (metrics,) = Path(folder).glob("single/runs/*/metrics.csv")
            header, *rows = (line.split(",") for line in metrics.read_text().splitlines())
            return 64 * batches / float(rows[-1][header.index("seconds")])

    return {"images_per_second": {"one process": round(rate(1)), "two processes": round(rate(2))}}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="tiny networks, to see that it runs; writes nothing")
    parser.add_argument("--only", choices=PARTS, help="one part, measured again; the others stay as recorded")
    arguments = parser.parse_args()
    smoke = arguments.smoke
    networks = SMOKE if smoke else NETWORKS
    middle = next(iter(networks.values())) if smoke else networks["WRN-16-2"]
    small = next(iter(networks.values()))
    found: dict[str, Any] = {"provenance": provenance()}
    if arguments.only and not smoke:
        found = read_part("training") or found
    print(json.dumps(provenance()), flush=True)
    if arguments.only in (None, "throughput"):
        with Arm() as arm:
            rates = {
                kind: arm(matmul_rate, dtype=kind, size=256 if smoke else 4096) for kind in ("float32", "bfloat16")
            }
        found["matmul_tflops"] = {kind: round(rate, 3) for kind, rate in rates.items()}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found["precision"] = decide_precision(device)
    parts: dict[str, Callable[[], Any]] = {
        "throughput": lambda: [
            throughput(name, shape, found["matmul_tflops"]["bfloat16"]) for name, shape in networks.items()
        ],
        "objectives": lambda: objectives({name: networks[name] for name in list(networks)[:3]}),
        "switches": lambda: switches(middle),
        "evaluation": lambda: evaluation(middle, 10 if smoke else 500, 1 if smoke else 3),
        "loading": lambda: loading(256 if smoke else 10_000, 1 if smoke else 3),
        "overhead": lambda: overhead(1 if smoke else 8),
        "batch_sizes": lambda: batch_sizes(small, (8, 16) if smoke else (32, 64, 128, 256), 1 if smoke else 3),
        "two_processes": lambda: two_processes("[8,8,8]" if smoke else "[16,32,64]", 2 if smoke else 18),
    }
    for name, measure in parts.items():
        if arguments.only in (None, name):
            found[name] = measure()
            found.setdefault("commits", {})[name] = provenance()["commit"]
            print(name, json.dumps(found[name], indent=1), flush=True)
    if not smoke:
        print(f"written: {write_part('training', found)}")


if __name__ == "__main__":
    main()
