"""What reading many runs costs: a study of thousands of runs, loaded, shown, reported and merged.

One small run is really recorded; the study consists of changed copies of it, in the true layout and with every file but
the checkpoints. Run with `make bench`. Writes the part `records` of this machine's results. Seconds are
wall-clock time, the least of the repetitions, of files that the operating system has in memory; a command's include the
start of its process.
"""

import argparse
import csv
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from machine import write_part

from robust_arch.common.files import read_json
from robust_arch.common.identity import short_hash
from robust_arch.runs import RunFolder, StudyFolder, load_study
from robust_arch.runs.provenance import provenance

EPOCHS = 30
UNFINISHED = {0: "failed", 1: "diverged", 2: "planned"}  # by the run's number modulo 50


def recorded_run(folder: Path) -> RunFolder:
    """A run as the package records it, above chance so that every attack is recorded."""
    arguments = ["data=digits", "arch.depths=[1,1,1]", "arch.widths=[8,8,8]", "objective=natural", "logger=csv"]
    arguments += ["trainer.max_epochs=4", "trainer.threads=1", f"results_dir={folder}", "study.name=template"]
    subprocess.run([sys.executable, "-m", "robust_arch.train", *arguments], check=True, capture_output=True)
    (run,) = StudyFolder(folder / "template").runs()
    return run


class Template:
    """The content of a recorded run, in memory."""

    def __init__(self, run: RunFolder) -> None:
        self.run_id = run.run_id
        self.status = read_json(run.path / "status.json") or {}
        self.result = read_json(run.path / "result.json") or {}
        self.texts = {name: (run.path / name).read_text() for name in ("config.yaml", "train.log")}
        self.card = (run.evaluations / "card.md").read_text()
        with run.metrics.open(newline="") as handle:
            self.rows = list(csv.DictReader(handle))
        pairs = {path: path.with_suffix(".npz") for path in run.evaluations.glob("*.json")}
        self.evaluations = [(read_json(path) or {}, arrays.read_bytes()) for path, arrays in pairs.items()]
        if any(set(record["attacks"]) != {"fgsm", "pgd20", "cw40"} for record, _ in self.evaluations):
            raise RuntimeError("the recorded run has no numbers to copy")

    def facts(self, study: str, number: int) -> dict[str, Any]:
        """Of one of the copies: an architecture of three seeds."""
        width = 8 + number // 3 % 400
        facts = self.status["run"] | {"study": study, "seed": number % 3, "epochs": EPOCHS}
        facts |= {"run_id": short_hash(["benchmark", number]), "widths": f"8-8-{width}"}
        return facts | {"arch": f"wide_resnet-d1-1-1-w8-8-{width}", "params": facts["params"] + 100 * (width - 8)}


def write_run(template: Template, folder: RunFolder, facts: dict[str, Any], number: int) -> None:
    """One copy, with numbers of its own."""
    noise = random.Random(number)
    state = UNFINISHED.get(number % 50, "completed")
    folder.evaluations.mkdir(parents=True)
    error = f"Traceback (most recent call last):\n  ...\nRuntimeError: run {number}" if state == "failed" else None
    status = template.status | {"state": state, "error": error, "run": facts}
    _write_json(folder.path / "status.json", status)
    (folder.path / ".lock").touch()
    for name, text in template.texts.items():
        (folder.path / name).write_text(text.replace(template.run_id, facts["run_id"]))
    with folder.metrics.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, fieldnames=list(template.rows[0]))
        writer.writeheader()
        writer.writerows(template.rows[epoch % len(template.rows)] | {"epoch": epoch} for epoch in range(EPOCHS))
    if state != "completed":
        return
    cost = template.result["cost"] | {"params": facts["params"]}
    own = {"run_id": facts["run_id"], "best_val_robust_acc": noise.uniform(20, 60), "epochs": EPOCHS, "cost": cost}
    _write_json(folder.path / "result.json", template.result | own | {"last_epoch": EPOCHS - 1})
    (folder.evaluations / "card.md").write_text(template.card.replace(template.run_id, facts["run_id"]))
    for record, arrays in template.evaluations:
        _write_evaluation(folder, record, arrays, noise)


def _write_evaluation(folder: RunFolder, record: dict[str, Any], arrays: bytes, noise: random.Random) -> None:
    eval_id = short_hash([folder.run_id, record["checkpoint"]])
    content = json.loads(json.dumps(record)) | {"eval_id": eval_id, "run_id": folder.run_id}
    for part in (content["clean"], content["worst_case"], *content["attacks"].values()):
        part["percent"] = noise.uniform(10, 90)
    _write_json(folder.evaluations / f"{eval_id}.json", content)
    (folder.evaluations / f"{eval_id}.npz").write_bytes(arrays)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")  # not forced to the disk one by one, which takes minutes


def write_study(template: Template, path: Path, numbers: range) -> None:
    """A study of these runs, its plan included."""
    study = StudyFolder(path)
    rows = []
    for number in numbers:
        facts = template.facts(study.name, number)
        write_run(template, study.run(facts["run_id"]), facts, number)
        rows.append({key: facts[key] for key in ("run_id", "arch", "params", "macs", "seed")})
    study.write_plan(rows, {"command": "python -m robust_arch.train -m", "budgets": [], "considered": len(rows)})


def least(action: Callable[[], object], repetitions: int) -> dict[str, Any]:
    """Seconds of a call: the least and all, and the least of the processors' time, of its processes too."""
    times, busy = [], []
    for _ in range(repetitions):
        started, worked = time.perf_counter(), sum(os.times()[:4])
        action()
        times.append(round(time.perf_counter() - started, 2))
        busy.append(round(sum(os.times()[:4]) - worked, 2))
    return {"seconds": min(times), "all": times, "cpu_seconds": min(busy)}


def command(*arguments: str | Path) -> None:
    """`robust-arch <arguments>` in a process of its own."""
    asked = [sys.executable, "-m", "robust_arch.cli", *map(str, arguments)]
    subprocess.run(asked, check=True, stdout=subprocess.DEVNULL)


def record_size(study: StudyFolder) -> dict[str, float]:
    """KB of a completed run's record: the content of its files, and what they take on the disk."""
    runs = [run for run in study.runs() if run.state == "completed"][:100]
    sizes = [[file.stat() for file in run.path.rglob("*") if file.is_file()] for run in runs]
    content = statistics.median(sum(stat.st_size for stat in stats) for stats in sizes)
    on_disk = statistics.median(sum(512 * stat.st_blocks for stat in stats) for stats in sizes)
    return {"content_kb": round(content / 1000, 1), "on_disk_kb": round(on_disk / 1000, 1)}


def reading(path: Path, repetitions: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is read from one study."""
    yield "load_study", least(lambda: load_study(path), repetitions)
    yield "write_results", least(StudyFolder(path).write_results, repetitions)
    yield "refresh_results", least(StudyFolder(path).refresh_results, repetitions)
    for name in ("status", "results", "report"):
        yield name, least(lambda name=name: command(name, path), repetitions if name != "report" else 1)


def merging(template: Template, folder: Path, runs: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Two studies of which a tenth is in both, merged into a third, and once more, when nothing is left to do."""
    for name, numbers in {"first": range(runs * 55 // 100), "second": range(runs * 45 // 100, runs)}.items():
        write_study(template, folder / name, numbers)
    arguments = ("merge", folder / "first", folder / "second", "--into", folder / "merged")
    yield "merge", least(lambda: command(*arguments), 1)
    yield "merge_again", least(lambda: command(*arguments), 1)
    merged = StudyFolder(folder / "merged")
    yield "merged_run", {"runs": sum(1 for _ in merged.runs()), **record_size(merged)}


def measurements(template: Template, folder: Path, runs: int, repetitions: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every part by name, in order."""
    path = folder / "many"
    write_study(template, path, range(runs))
    yield from reading(path, repetitions)
    shutil.rmtree(path)
    yield from merging(template, folder, runs)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="100 runs, each part once; writes nothing")
    arguments = parser.parse_args()
    runs, repetitions = (100, 1) if arguments.smoke else (arguments.runs, arguments.repetitions)
    found: dict[str, Any] = {"provenance": provenance(), "runs": runs}
    with tempfile.TemporaryDirectory() as folder:
        template = Template(recorded_run(Path(folder)))
        for name, measured in measurements(template, Path(folder), runs, repetitions):
            found[name] = measured
            print(name, json.dumps(measured), flush=True)
    if not arguments.smoke:
        print(f"written: {write_part('records', found)}")


if __name__ == "__main__":
    main()
