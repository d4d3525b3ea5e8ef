"""Where the time of one training step goes: milliseconds per part, which add up to the measured step.

Runs the training loop of `python -m robust_arch.train` on random 32x32 colour images and charges each moment to the
innermost part that is running; what no part covers is Lightning's loop and callbacks. A second table gives the share of
each kind of operator in one further step, by torch.profiler. `--record` keeps both among this machine's results.

On a machine that does other work, `--cpu-time` measures the processor time of a single thread instead of wall time.
On a GPU the host waits for the device at both ends of each part, so a step takes longer than in training.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from arms import OBJECTIVES, training_run
from machine import write_part
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.data.dataloader import _BaseDataLoaderIter

from robust_arch.attacks import gradient
from robust_arch.engine.frozen import FrozenNetwork
from robust_arch.runs.provenance import provenance
from robust_arch.training.module import AdversarialTraining

NETWORKS = {
    "WRN-16-1": ((2, 2, 2), (16, 32, 64)),
    "WRN-16-2": ((2, 2, 2), (32, 64, 128)),
    "WRN-16-4": ((2, 2, 2), (64, 128, 256)),
    "tiny": ((1, 1, 1), (4, 4, 4)),
}
REST = "loop and callbacks"
PARTS = (
    "fetch the batch",
    "augment",
    "attack: prepare weights",
    "attack: forward",
    "attack: backward",
    "attack: arithmetic",
    "natural forward",
    "adversarial forward",
    "loss",
    "adversarial backward",
    "natural backward",
    "zero gradients",
    "clip gradients",
    "optimizer",
    "bookkeeping",
    REST,
)
OPERATORS = {
    "convolution": ("conv",),
    "BatchNorm": ("batch_norm",),
    "copies and conversions": ("copy", "clone", "contiguous"),
    "ReLU": ("relu", "threshold", "clamp_min"),
    "addition": ("aten::add",),
    "matrix product": ("mm", "linear"),
}


class Clock:
    """Charges time to the innermost part that is running. now: the time in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now, self.spent = now, Counter[str]()
        self._running, self._since = [REST], now()

    def _charge(self) -> None:
        moment = self.now()
        self.spent[self._running[-1]] += moment - self._since  # type: ignore[assignment]
        self._since = moment

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """A part, which interrupts the one that is running."""
        self._charge()
        self._running.append(name)
        try:
            yield
        finally:
            self._charge()
            self._running.pop()

    def turn_to(self, name: str) -> None:
        """End the innermost part, and begin another in its place."""
        self._charge()
        self._running[-1] = name

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function as a part."""

        def call(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return function(*args, **kwargs)

        return call

    def lap(self) -> dict[str, float]:
        """Seconds by part since the last lap."""
        self._charge()
        found, self.spent = dict(self.spent), Counter()
        return found


class Profiled(AdversarialTraining):
    """Training with a lap of `clock` per step; the last step is profiled by operator instead."""

    clock: Clock

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """A lap ends: of step `batch_idx` - 1, with what followed it, and the fetching of this batch."""
        self.laps = [*getattr(self, "laps", []), self.clock.lap()]
        if batch_idx + 1 == self.trainer.num_training_batches:
            self.profiler = profile(activities=[ProfilerActivity.CPU]).__enter__()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """The last step ends."""
        if batch_idx + 1 == self.trainer.num_training_batches:
            self.profiler.__exit__(None, None, None)
        super().on_train_batch_end(outputs, batch, batch_idx)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """What is neither attack nor loss nor augmentation is bookkeeping."""
        with self.clock.part("bookkeeping"):
            return super().training_step(batch, batch_idx)

    def _loss(self, x: Tensor, y: Tensor, *rest: Any) -> Any:
        net, clock = self.attacked_net, self.clock
        with clock.part("attack: arithmetic"):
            x_adv = self.objective.adversarial(net, x, y, *rest)
        with clock.part("loss"):
            return self.objective.loss(Passes(net, x_adv, clock), x, x_adv, y)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Through the loss, then through the passes, the later one first."""
        with self.clock.part("loss"):
            super().backward(loss, *args, **kwargs)

    def optimizer_zero_grad(self, *args: Any, **kwargs: Any) -> None:
        """A part."""
        with self.clock.part("zero gradients"):
            super().optimizer_zero_grad(*args, **kwargs)

    def configure_gradient_clipping(self, *args: Any, **kwargs: Any) -> None:
        """A part."""
        with self.clock.part("clip gradients"):
            super().configure_gradient_clipping(*args, **kwargs)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """A part that all of the step's other parts interrupt."""
        with self.clock.part("optimizer"):
            super().optimizer_step(*args, **kwargs)


class Passes(nn.Module):
    """The network in the outer loss, whose passes are timed in both directions."""

    def __init__(self, net: nn.Module, x_adv: Tensor, clock: Clock) -> None:
        super().__init__()
        self.net, self.x_adv, self.clock = net, x_adv, clock

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W). Returns logits (B, K)."""
        kind = "adversarial" if x is self.x_adv else "natural"
        with self.clock.part(f"{kind} forward"):
            logits: Tensor = self.net(x)
        # autograd runs all operations of a later pass before those of an earlier one
        if logits.grad_fn is not None:
            logits.grad_fn.register_prehook(lambda _: self.clock.turn_to(f"{kind} backward"))
        return logits


def by_operator(profiler: profile) -> dict[str, float]:
    """Share of each kind of operator in the time of all."""
    found = Counter[str]()
    for event in profiler.key_averages():
        kinds = [kind for kind, names in OPERATORS.items() if any(name in event.key for name in names)]
        found[kinds[0] if kinds else "other"] += event.self_cpu_time_total  # type: ignore[assignment]
    return {kind: round(spent / sum(found.values()), 4) for kind, spent in found.most_common()}


def clock_of(cpu_time: bool) -> Callable[[], float]:
    """Processor time of this process, or wall time of a host that waits for its device."""
    if cpu_time:
        return time.process_time
    if not torch.cuda.is_available():
        return time.perf_counter

    def now() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return now


def profiled(name: str, objective: str, batch_size: int, steps: int, cpu_time: bool, **trainer: Any) -> dict[str, Any]:
    """Milliseconds of each part of the median one of `steps` steps, after one to warm up; shares of operators."""
    clock = Clock(clock_of(cpu_time))

    def begin(module: Profiled) -> None:
        module.clock = clock
        object.__setattr__(module.recipe, "augment", clock.timed("augment", module.recipe.augment))

    with ExitStack() as stack:
        for owner, attribute, part in (
            (FrozenNetwork, "refresh", "attack: prepare weights"),
            (FrozenNetwork, "forward", "attack: forward"),
            (gradient, "image_gradient", "attack: backward"),
            (_BaseDataLoaderIter, "__next__", "fetch the batch"),
        ):
            original = getattr(owner, attribute)

            def call(*args: Any, _original: Any = original, _part: str = part, **kwargs: Any) -> Any:
                return clock.timed(_part, _original)(*args, **kwargs)

            stack.enter_context(patch.object(owner, attribute, call))
        count = steps + 3  # the first lap ends before any step, the second warms up, the last is profiled by operator
        module = training_run(Profiled, OBJECTIVES[objective], *NETWORKS[name], batch_size, count, begin, **trainer)
    laps = module.laps[2 : steps + 2]
    step = sorted(laps, key=lambda lap: sum(lap.values()))[len(laps) // 2]
    return {
        "network": name,
        "objective": objective,
        "batch_size": batch_size,
        "steps": steps,
        "time": "processor time of one thread" if cpu_time else "wall time",
        "step_ms": round(1000 * sum(step.values()), 2),
        "parts_ms": {part: round(1000 * step.get(part, 0.0), 2) for part in PARTS},
        "operators": by_operator(module.profiler),
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=["WRN-16-1", "WRN-16-2"])
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=list(OBJECTIVES))
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=3, help="measured steps, of which the median one is shown")
    parser.add_argument("--cpu-time", action="store_true", help="processor time of one thread")
    parser.add_argument("--record", action="store_true", help="keep the result among this machine's")
    arguments = parser.parse_args()
    found = []
    for name in arguments.networks:
        for objective in arguments.objectives:
            asked = (name, objective, arguments.batch_size, arguments.steps, arguments.cpu_time)
            found.append(profiled(*asked, **({"threads": 1} if arguments.cpu_time else {})))
            print(json.dumps(found[-1], indent=1), flush=True)
    if arguments.record:
        print(f"written: {write_part('profile', {'provenance': provenance(), 'steps': found})}")


if __name__ == "__main__":
    main()
