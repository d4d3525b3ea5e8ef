"""What evaluation costs: the cascade, the AutoAttack adapter and memory, each against its plain counterpart.

Run with `make bench`. Writes the part `evaluation` of this machine's results. A ratio is the median over
interleaved repetitions of one run. Seconds are CPU seconds of one thread, so that other work on the machine counts
little; those of different machines are not comparable.
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

import pyautoattack
import torch
from machine import write_part

from robust_arch.architectures import ArchSpec, build
from robust_arch.attacks import PGD, Clean, ThreatModel
from robust_arch.attacks.autoattack import AutoAttack
from robust_arch.common.identity import describe
from robust_arch.configuration.evaluation import read_attack
from robust_arch.data import ImageSet
from robust_arch.data.digits import Digits
from robust_arch.evaluation import EvaluationRecord, EvaluationSettings, NamedAttack, Subject, extend, select_examples
from robust_arch.interop import load_checkpoint
from robust_arch.runs.provenance import provenance

CPU = torch.device("cpu")
THREAT = ThreatModel("linf", "0.2")
SUITE = ("fgsm", "pgd20", "cw40", "gama100", "autoattack")


def trained_network(folder: Path) -> torch.nn.Module:
    """A network of 24,570 parameters, adversarially trained on digits by the demo's recipe."""
    small = ("arch.depths=[1,1,1]", "arch.widths=[16,16,32]", "evaluate.attacks=[]", "logger=csv")
    command = [sys.executable, "-m", "robust_arch.train", *small, f"results_dir={folder}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    (checkpoint,) = folder.glob("single/runs/*/checkpoints/best.ckpt")
    return load_checkpoint(checkpoint).net


def seconds(action: Callable[[], object]) -> float:
    """CPU time of one call."""
    started = time.process_time()
    action()
    return time.process_time() - started


def interleaved(first: Callable[[], object], second: Callable[[], object], repetitions: int) -> dict[str, object]:
    """Both in turn, after one warm-up of each; medians, ranges, and the median of the ratios first / second."""
    first(), second()
    pairs = [(seconds(first), seconds(second)) for _ in range(repetitions)]
    ratios = [one / other for one, other in pairs]
    return {
        "seconds": [round(statistics.median(times), 3) for times in zip(*pairs, strict=True)],
        "ratio": round(statistics.median(ratios), 4),
        "ratios": [round(ratio, 4) for ratio in ratios],
    }


def cascade(net: torch.nn.Module, test: ImageSet, n: int) -> dict[str, object]:
    """The cascade against every attack on every example."""
    attacks = tuple(read_attack(name) for name in SUITE)
    found = {}
    for name, asked in (("cascade", {"attacks": (), "cascade": attacks}), ("everything", {"attacks": attacks})):
        with tempfile.TemporaryDirectory() as folder:
            subject = Subject("benchmark", "external", "raw", THREAT, "digits")
            record = EvaluationRecord(Path(folder), subject, select_examples(test, n))
            took = seconds(lambda: extend(record, net, EvaluationSettings(n=n, **asked), THREAT, CPU, {}))  # noqa: B023
            found[name] = {"seconds": round(took, 2), "worst_case_percent": record.content["worst_case"]["percent"]}
    ratio = found["everything"]["seconds"] / found["cascade"]["seconds"]
    return {"attacks": list(SUITE), "n": n, **found, "times_faster": round(ratio, 2)}


def adapter(net: torch.nn.Module, test: ImageSet, n: int, repetitions: int) -> dict[str, object]:
    """The AutoAttack adapter on one block against a direct call of the library."""
    examples = select_examples(test, n)
    ((_, x, y, index),) = examples.batches(n, CPU)

    def direct() -> torch.Tensor:
        suite = pyautoattack.AutoAttack(net, norm="Linf", eps=THREAT.eps, version="standard", seed=0, device=CPU)
        x_adv: torch.Tensor = suite.run_standard_evaluation(x, y, batch_size=n)[0]
        return x_adv

    attack = AutoAttack(block_size=n)
    return {"n": n, **interleaved(lambda: attack(net, x, y, THREAT, seed=0, index=index), direct, repetitions)}


def blocks(net: torch.nn.Module, test: ImageSet, n: int, block_size: int) -> dict[str, object]:
    """Robust accuracy of AutoAttack in blocks against one call of the library on all images."""
    ((_, x, y, index),) = select_examples(test, n).batches(n, CPU)

    def percent(size: int) -> float:
        x_adv = AutoAttack(block_size=size)(net, x, y, THREAT, seed=0, index=index)
        return 100 * float((net(x_adv).argmax(dim=1) == y).float().mean())

    in_blocks, at_once = percent(block_size), percent(n)
    points = round(in_blocks - at_once, 2)
    return {"n": n, "block_size": block_size, "blocks": in_blocks, "one_call": at_once, "points_apart": points}


def memory_of(n: int) -> None:
    """Evaluate `n` random 32x32 colour images with a WRN-16-1 under one step, and print the peak memory in MiB."""
    import resource

    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=generator)
    net = build(ArchSpec("wide_resnet", (2, 2, 2), (16, 32, 64)), seed=0).eval()
    with torch.no_grad():  # labels that the network agrees with: at chance level nothing would be attacked
        labels = torch.cat([net(part.float() / 255).argmax(dim=1) for part in images.split(250)])
    test = ImageSet(images, labels, 10)
    fgsm = PGD(steps=1, rel_step_size=1.0, start=Clean())
    settings = EvaluationSettings(attacks=(NamedAttack("fgsm", fgsm, describe(fgsm)),), batch_size=250)
    with tempfile.TemporaryDirectory() as folder:
        subject = Subject("benchmark", "external", "raw", ThreatModel("linf", "8/255"), "random")
        record = EvaluationRecord(Path(folder), subject, select_examples(test, None))
        extend(record, net, settings, ThreatModel("linf", "8/255"), CPU, {})
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def memory() -> dict[str, object]:
    """Peak memory for 1,000 and for 10,000 images, each in a process of its own."""
    peaks = {}
    for n in (1_000, 10_000):
        output = subprocess.run([sys.executable, __file__, "--memory-of", str(n)], check=True, capture_output=True)
        peaks[str(n)] = round(float(output.stdout.split()[-1]))
    growth = peaks["10000"] - peaks["1000"]
    return {"peak_mib": peaks, "growth_mib": growth, "of_which_uint8_images_mib": round(9_000 * 3072 / 2**20, 1)}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=100, help="test images")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        memory_of(arguments.memory_of)
        return
    torch.set_num_threads(1)
    test = Digits(name="digits").load().test
    with tempfile.TemporaryDirectory() as folder:
        net = trained_network(Path(folder))
    parts: dict[str, Callable[[], dict[str, object]]] = {
        "memory": memory,
        "cascade_against_everything": lambda: cascade(net, test, arguments.n),
        "autoattack_adapter_against_direct_call": lambda: adapter(net, test, arguments.n, arguments.repetitions),
        "autoattack_in_blocks_against_one_call": lambda: blocks(net, test, arguments.n, max(1, arguments.n // 2)),
    }
    found: dict[str, object] = {"provenance": provenance()}
    for name, measure in parts.items():
        found[name] = measure()
        print(name, json.dumps(found[name]), flush=True)
    print(f"written: {write_part('evaluation', found)}")


if __name__ == "__main__":
    main()
