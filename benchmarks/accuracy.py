"""What speed costs in accuracy: the engine against the plain path, and cheaper inner attacks against ten steps.

Every arm is the command `python -m robust_arch.train` with the same seeds, data and recipe; differences are paired by
seed. `make bench` runs the digits; `--cifar FOLDER` adds a part of CIFAR-10 from an image folder. Writes the part
`accuracy` of this machine's results.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from machine import read_part, write_part

from robust_arch.common.files import read_json
from robust_arch.common.statistics import mean_interval
from robust_arch.runs import load_study
from robust_arch.runs.provenance import provenance

ARMS = {
    "engine": ["objective=sat"],
    "engine in float32": ["objective=sat", "trainer.precision=32"],
    "plain path": ["objective=sat", "trainer=plain"],
    "3 steps of 0.5 eps": ["objective=sat", "objective.name=sat3", "objective.attack.steps=3",
                           "objective.attack.rel_step_size=0.5"],
    "fgsm_rs": ["objective=fgsm_rs"],
    "n_fgsm": ["objective=n_fgsm"],
}  # fmt: skip
TASKS: dict[str, dict[str, Any]] = {
    "digits": {
        "seeds": 5,
        "arms": tuple(ARMS),
        "arguments": ["data=digits", "recipe=digits", "arch.depths=[1,1,1]", "arch.widths=[16,16,32]"],
    },
    "cifar": {
        "seeds": 3,
        "arms": tuple(ARMS)[:3],  # the paths; what cheaper attacks cost is measured on digits
        "arguments": ["recipe=short", "arch.depths=[1,1,1]", "arch.widths=[16,16,32]", "trainer.max_epochs=3",
                      "trainer.limit_train_batches=25", "evaluate.n=1000", "selection.images=500"],
    },
}  # fmt: skip


def trained(task: str, overrides: list[str], seeds: int, folder: Path) -> dict[str, Any]:
    """Train the seeds of one arm one after the other; numbers by seed, of the best checkpoint."""
    arguments = [*TASKS[task]["arguments"], *overrides, "logger=csv", "evaluate.attacks=[pgd20]"]
    command = [sys.executable, "-m", "robust_arch.train", "-m", "hydra/sweeper=budget", "evaluate.checkpoints=[best]"]
    arguments.append(f"search.seeds={list(range(seeds))}".replace(" ", ""))
    subprocess.run([*command, *arguments, "study.name=arm", f"results_dir={folder}"], check=True, capture_output=True)
    frame = load_study(folder / "arm").sort_values("seed")
    results = [read_json(folder / "arm" / "runs" / run_id / "result.json") or {} for run_id in frame["run_id"]]
    return {
        "command": " ".join(["python", *command[1:], *map(_without_folder, arguments)]),
        "clean_acc": [round(value, 2) for value in frame["clean_acc"]],
        "pgd20_acc": [round(value, 2) for value in frame["pgd20_acc"]],
        "n_test": int(frame["n_test"].iloc[0]),
        "train_seconds": [round(value, 1) for value in frame["train_seconds"]],
        "flags": sorted({flag.split(":")[0] for result in results for flag in result["flags"]}),
        "flagged_runs": sum(bool(result["flags"]) for result in results),
    }


def _without_folder(argument: str) -> str:
    return "data.root=FOLDER" if argument.startswith("data.root=") else argument


def compared(arms: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Each arm beside the first: mean difference of PGD-20 accuracy with its t interval, ratio of training times."""
    first = next(iter(arms.values()))
    found = {}
    for name, arm in arms.items():
        differences = [one - other for one, other in zip(arm["pgd20_acc"], first["pgd20_acc"], strict=True)]
        ratios = [one / other for one, other in zip(arm["train_seconds"], first["train_seconds"], strict=True)]
        interval = mean_interval(differences)
        found[name] = {
            "pgd20_points_more_than_engine": round(interval.mean, 2),
            "interval_95": [round(end, 2) for end in (interval.low, interval.high) if end is not None],
            "times_the_engine's_training_time": round(statistics.median(ratios), 2),
            "mean_pgd20_acc": round(statistics.mean(arm["pgd20_acc"]), 2),
            "mean_clean_acc": round(statistics.mean(arm["clean_acc"]), 2),
        }
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar", type=Path, help="folder with train/<class>/ and test/<class>/ of CIFAR-10 images")
    parser.add_argument("--label", default="cifar10_jpeg", help="what the images are called in the records")
    parser.add_argument("--only", choices=TASKS, help="one task, measured again; the other stays as recorded")
    parser.add_argument("--smoke", action="store_true", help="one epoch of two seeds; writes nothing")
    arguments = parser.parse_args()
    found: dict[str, Any] = {"provenance": provenance()}
    if arguments.only and not arguments.smoke:
        found = read_part("accuracy") or found
    print(json.dumps(provenance()), flush=True)
    if arguments.cifar:
        root = arguments.cifar.resolve()
        TASKS["cifar"]["arguments"] += ["data=image_folder", f"data.root={root}", f"data.name={arguments.label}"]
    for task in [arguments.only] if arguments.only else ["digits", *(["cifar"] if arguments.cifar else [])]:
        seeds = 2 if arguments.smoke else TASKS[task]["seeds"]
        if arguments.smoke:
            TASKS[task]["arguments"] += ["trainer.max_epochs=1", "trainer.limit_train_batches=2", "evaluate.n=40"]
        arms = {}
        for name in TASKS[task]["arms"]:
            with tempfile.TemporaryDirectory() as folder:
                arms[name] = trained(task, ARMS[name], seeds, Path(folder))
            print(task, name, json.dumps(arms[name]), flush=True)
        found[task] = {"commit": provenance()["commit"], "compared": compared(arms), "arms": arms}
        print(json.dumps(found[task]["compared"], indent=1), flush=True)
    if not arguments.smoke:
        print(f"written: {write_part('accuracy', found)}")


if __name__ == "__main__":
    main()
