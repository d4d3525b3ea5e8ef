"""What one GPU does: numerics against the CPU, training against the reference, small runs at once, AutoAttack, memory.

One command that is run again until nothing is left: each finished part is written to this machine's results at once,
later calls skip it, and a call ends before `--minutes` have passed. A part that is cut off starts the next call; one
that takes a whole call by itself is recorded as too slow. A part that fails, or numerics that differ, is recorded,
measured again by the next call, and makes the exit status 1. Then run `python benchmarks/tables.py`.

    python benchmarks/gpu.py --minutes 9
    python benchmarks/gpu.py --device cpu --tiny --out /tmp/gpu.json    # tries the command itself, without a GPU
    python benchmarks/gpu.py --c2                                       # prints the commands of a long study, runs none
"""

import argparse
import copy
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from arms import (
    OBJECTIVES,
    THREAT,
    Arm,
    engine_steps,
    matmul_rate,
    network,
    random_images,
    reference_steps,
)
from machine import read_results, result_file, write_part
from torch import Tensor, nn

from robust_arch.architectures import ArchSpec, cost
from robust_arch.attacks import PGD, ThreatModel
from robust_arch.attacks.autoattack import APGDScreen, AutoAttack
from robust_arch.attacks.base import Attack
from robust_arch.attacks.start import Uniform
from robust_arch.common.randomness import example_keys
from robust_arch.engine import AttackableNetwork
from robust_arch.runs.provenance import provenance

Shape = tuple[tuple[int, ...], tuple[int, ...]]

NETWORKS: dict[str, Shape] = {
    "WRN-16-4": ((2, 2, 2), (64, 128, 256)),
    "WRN-28-10": ((4, 4, 4), (160, 320, 640)),
    "WRN-34-10": ((5, 5, 5), (160, 320, 640)),
}
SMALL: Shape = ((2, 2, 2), (16, 32, 64))
TINY: Shape = ((1, 1, 1), (4, 4, 8))
PASSES = 10 * 2 + 3  # of a step of SAT: ten times forward and to the images, once forward, to images and to weights
HARMLESS = ThreatModel("linf", "1/25500")  # every image withstands, so that each attack runs to its end
# largest differences that are rounding: of the largest value, or of the value for losses
TOLERANCES = {
    "random start": 0.0,
    "logits": 1e-4,
    "image gradients": 1e-3,
    "loss of sat": 1e-4,
    "loss of trades": 1e-3,
    "loss of mart": 1e-4,
    "loss under PGD": 1e-2,
    "logits in bfloat16": 0.25,
}
C2 = {"1m": (3, 2), "3m": (2, 4), "4m": (3, 4)}  # blocks per stage and widening factor: 1.1, 2.7 and 4.3 M parameters


def c2_commands() -> Iterator[str]:
    """Train a network, and one with half the last stage's width and as many parameters, with three seeds, per size."""
    for name, (depth, factor) in C2.items():
        widths = ",".join(str(base * factor) for base in (16, 32, 64))
        yield (
            "python -m robust_arch.train -m study=last_stage scale=small recipe=huang2021 study.base=null "
            f"'arch.depths=[{depth},{depth},{depth}]' 'arch.widths=[{widths}]' 'search.space.vary.widths=[0.5]' "
            f"search.space.vary.depths=null search.budget.params=arch study.name=c2_{name} data.root=data"
        )


def moved(net: nn.Module, device: torch.device) -> nn.Module:
    """A copy on the device, in the layout of training."""
    return copy.deepcopy(net).to(device, memory_format=torch.channels_last)


def losses(net: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor) -> dict[str, Tensor]:
    """The outer loss of each objective, in evaluation mode: (1,)."""
    return {f"loss of {name}": each.loss(net, x, x_adv, y).total.detach()[None] for name, each in OBJECTIVES.items()}


def computed(net: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """What is compared, on the CPU, from a network and images on one device."""
    inputs = x.clone().requires_grad_(True)
    logits = net(inputs)
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(logits, y, reduction="sum"), inputs)
    start = Uniform()(x, THREAT, example_keys(0, torch.arange(len(x), device=x.device)))
    attacked = PGD(steps=10, rel_step_size=0.25)(AttackableNetwork(net), x, y, THREAT)
    half = AttackableNetwork(net, torch.bfloat16).attacked(x)
    with torch.no_grad():
        found = {
            "random start": start,
            "logits": logits,
            "image gradients": gradient,
            **losses(net, x, start, y),
            "loss under PGD": nn.functional.cross_entropy(net(attacked), y)[None],
            "logits in bfloat16": half(x) if x.device.type == "cuda" else net(x),
        }
    return {name: value.detach().float().cpu() for name, value in found.items()}


def numerics(shape: Shape, device: str, batch: int) -> dict[str, Any]:
    """Differences between the device and the CPU, in float32 without TF32 but for bfloat16, against float32 there."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    net = network(*shape).train()
    images = random_images(batch)
    x, y = images.images.float() / 255, images.labels
    with torch.no_grad():
        net(x)  # gives BatchNorm statistics of such images
    net.eval()
    here = computed(net, x, y)
    place = torch.device(device)
    there = computed(moved(net, place), x.to(place), y.to(place))
    differences = {
        name: float((there[name] - here[name]).abs().max() / here[name].abs().max().clamp(min=1e-12))
        for name in TOLERANCES
    }
    differing = [name for name, value in differences.items() if not value <= TOLERANCES[name]]
    shown = {name: f"{value:.1e} of at most {TOLERANCES[name]:g}" for name, value in differences.items()}
    found = {"differences": differences, "tolerances": TOLERANCES, "shown": shown}
    return {**found, "error": f"differs from the CPU: {', '.join(differing)}"} if differing else found


def matrix_products(size: int) -> dict[str, Any]:
    """TFLOP/s of a square matrix product by type."""
    torch.backends.cuda.matmul.allow_tf32 = False
    rates = {f"{kind} TFLOP/s": round(matmul_rate(kind, size), 3) for kind in ("float32", "bfloat16")}
    return {"shown": rates}


def training(shape: Shape, batch: int, steps: int, side: str) -> dict[str, Any]:
    """Rates and peak memory of one side: reference, engine, or engine with CUDA graphs."""
    asked = {"depths": shape[0], "widths": shape[1], "batch_size": batch, "warm_up": 2}
    if side == "reference":
        times = reference_steps(steps=steps, **asked)
    else:
        times = engine_steps(steps=steps + 1, compile=side == "engine, CUDA graphs", **asked)
    seconds = statistics.median(times)
    tflops = 2 * cost(ArchSpec("wide_resnet", *shape)).macs * PASSES * batch / seconds / 1e12
    shown = {"images/s": round(batch / seconds, 2), "TFLOP/s": round(tflops, 4)}
    return {"steps": steps, "seconds": times, "shown": shown | gpu_memory()}


def gpu_memory() -> dict[str, int]:
    """Most memory of the GPU that this process's tensors have held; nothing without one."""
    return {"GPU MiB": round(torch.cuda.max_memory_allocated() / 2**20)} if torch.cuda.is_available() else {}


def at_once(shape: Shape, batch: int, steps: int, runs: int) -> dict[str, Any]:
    """Images per second of all of several small runs, each in a process of its own."""
    with ExitStack() as stack, ThreadPoolExecutor(runs) as threads:
        arms = [stack.enter_context(Arm()) for _ in range(runs)]
        asked = {"depths": shape[0], "widths": shape[1], "batch_size": batch, "warm_up": 2, "steps": steps + 1}
        pending = [threads.submit(arm, engine_steps, **asked) for arm in arms]
        rates = [batch / statistics.median(each.result()) for each in pending]
        held = [arm(gpu_memory) for arm in arms]
    memory = {key: sum(each[key] for each in held) for key in held[0]}
    return {"rates": rates, "shown": {"images/s of all": round(sum(rates), 1), **memory}}


def attacked(shape: Shape, device: str, attack: Attack, n: int) -> dict[str, Any]:
    """Seconds per image that withstands the attack, as evaluations run it: float32, the folded network."""
    place = torch.device(device)
    net = moved(network(*shape).eval(), place)
    x = (random_images(n).images.float() / 255).to(place)
    with torch.no_grad():
        y = net(x).argmax(dim=1)
    started = time.perf_counter()
    x_adv = attack(AttackableNetwork(net), x, y, HARMLESS)
    if place.type == "cuda":
        torch.cuda.synchronize()
    seconds = (time.perf_counter() - started) / n
    with torch.no_grad():
        standing = int((net(x_adv).argmax(dim=1) == y).sum())
    shown = {"seconds per image": round(seconds, 4), "images that withstood": f"{standing} of {n}"}
    return {"shown": shown | gpu_memory()}


def parts(device: str, *, tiny: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """Every part by name, in order; each is picklable and runs in a process of its own."""
    networks = {"tiny": TINY} if tiny else NETWORKS
    batches, steps, small = ((4,), 1, TINY) if tiny else ((128, 512), 10, SMALL)
    middle = list(networks.values())[len(networks) // 2]
    sides = ("reference", "engine", *(("engine, CUDA graphs",) if device == "cuda" else ()))
    found: dict[str, Callable[[], dict[str, Any]]] = {
        "numerics": partial(numerics, next(iter(networks.values())), device, 8 if tiny else 64),
        "matrix product": partial(matrix_products, 64 if tiny else 8192),
    }
    for name, shape in networks.items():
        for batch in batches:
            for side in sides:
                found[f"{name}, batch {batch}: {side}"] = partial(training, shape, batch, steps, side)
    for runs in (1, 2) if tiny else (1, 2, 4, 8):
        found[f"{runs} small runs at once"] = partial(at_once, small, batches[0], 3 * steps, runs)
    count = 1 if tiny else 64
    found["aa_screen"] = partial(attacked, middle, device, APGDScreen(block_size=count), count)
    if not tiny:
        found["autoattack"] = partial(attacked, middle, device, AutoAttack(block_size=count), count)
    return found


def called(part: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A part, in its own process; too little memory on the GPU is a result."""
    try:
        return part()
    except torch.OutOfMemoryError:
        return {"shown": {"out of GPU memory": ""}}


def measured(part: Callable[[], dict[str, Any]], seconds: float) -> dict[str, Any]:
    """The result of a part, or its failure as `error`; raises TimeoutError after `seconds`."""
    with Arm() as arm:
        try:
            return {**arm(called, seconds=seconds, part=part), "commit": provenance()["commit"]}
        except RuntimeError as error:
            return {"error": str(error), "commit": provenance()["commit"]}


class State:
    """Finished parts in a file of results, which holds other benchmarks' too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found = read_results(path).get("gpu") or {"provenance": provenance(), "parts": {}}

    def is_done(self, name: str) -> bool:
        """Whether the part is finished; a failed one is not."""
        return name in self.found["parts"] and "error" not in self.found["parts"][name]

    def keep(self, name: str, result: dict[str, Any]) -> None:
        """Write the part's result at once."""
        self.found["parts"][name] = result
        write_part("gpu", self.found, self.path)


def run(
    todo: dict[str, Callable[[], dict[str, Any]]],
    state: State,
    minutes: float,
    measure: Callable[[Callable[[], dict[str, Any]], float], dict[str, Any]] = measured,
) -> list[str]:
    """Measure what is not done while there is time; returns the names of what is left."""
    started, fresh = time.monotonic(), True
    left = [name for name in todo if not state.is_done(name)]
    for name in list(left):
        remaining = 60 * minutes - (time.monotonic() - started)
        if remaining <= 0:
            break
        try:
            result = measure(todo[name], remaining)
        except TimeoutError:
            if not fresh:
                break
            result = {"shown": {"too slow": f"more than {minutes:g} minutes"}}
        fresh = False
        state.keep(name, result)
        left.remove(name)
        print(f"{name}: {json.dumps(result.get('shown'))} {result.get('error', '')}".rstrip(), flush=True)
    return left


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0, help="after which this call ends")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="sizes that measure nothing; needs --out")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="instead of this machine's results")
    parser.add_argument("--c2", action="store_true", help="print the commands of the C2 pairs on CIFAR-10, and end")
    arguments = parser.parse_args()
    if arguments.c2:
        print("\n".join(c2_commands()))
        return
    if (arguments.tiny or arguments.device == "cpu") and arguments.out is None:
        parser.error("--tiny and --device cpu need --out, as their figures are not results")
    if arguments.device == "cpu":  # for the parts' processes too
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif not torch.cuda.is_available():
        parser.error("--device = 'cuda': torch sees no GPU here")
    state = State(arguments.out or result_file())
    left = run(parts(arguments.device, tiny=arguments.tiny), state, arguments.minutes)
    failed = {name: part["error"] for name, part in state.found["parts"].items() if "error" in part}
    for name, error in failed.items():
        print(f"failed: {name}: {error}")
    print(f"left: {', '.join(left)}; run the command again" if left else "nothing is left")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
