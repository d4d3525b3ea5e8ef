"""What is compared: each arm is a process of its own, so that the memory and threads of one leave the other alone."""

import math
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import reference
import torch

from robust_arch.architectures import ArchSpec, build
from robust_arch.attacks import PGD, Margin, ThreatModel
from robust_arch.attacks.losses import KLToClean
from robust_arch.attacks.start import Gaussian
from robust_arch.common.identity import describe
from robust_arch.common.randomness import example_keys
from robust_arch.data import ImageSet, Splits
from robust_arch.data.augment import CropFlip
from robust_arch.data.batches import GlobalBatches, loader
from robust_arch.engine import AttackableNetwork
from robust_arch.evaluation import NamedAttack, select_examples
from robust_arch.evaluation.scoring import Scene, clean_logits, run_attack
from robust_arch.objectives import Objective
from robust_arch.objectives.mart import MART
from robust_arch.objectives.sat import SAT
from robust_arch.objectives.trades import TRADES
from robust_arch.training.datamodule import StudyData
from robust_arch.training.fit import fit
from robust_arch.training.module import AdversarialTraining
from robust_arch.training.recipe import Recipe
from robust_arch.training.schedule import Steps
from robust_arch.training.settings import TrainerSettings

THREAT = ThreatModel("linf", "8/255")
_START = Gaussian(std=0.001)
OBJECTIVES: dict[str, Objective] = {  # as in conf/objective
    "sat": SAT(name="sat", attack=PGD(steps=10, rel_step_size=0.25)),
    "trades": TRADES(name="trades", attack=PGD(steps=10, rel_step_size=0.25, start=_START, loss=KLToClean())),
    "mart": MART(name="mart", attack=PGD(steps=10, rel_step_size=0.25, start=_START)),
}
RIGHT = 0.85  # share of evaluated images that the network classifies correctly, near that of robust CIFAR-10 networks


def random_images(count: int, seed: int = 0) -> ImageSet:
    """32x32 colour images; what a step costs does not depend on what is in them."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return ImageSet(images, torch.randint(0, 10, (count,), generator=generator), 10)


def network(depths: tuple[int, ...], widths: tuple[int, ...]) -> torch.nn.Module:
    """A pre-activation WideResNet."""
    return build(ArchSpec("wide_resnet", depths, widths), seed=0)


def medians(times: list[float]) -> dict[str, float]:
    """Median and range, in seconds."""
    return {"median": statistics.median(times), "least": min(times), "most": max(times)}


class Timed(AdversarialTraining):
    """Notes when each training step starts: what lies between is the step with its data and everything around it."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """The time of a host that waits for its device."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.moments = [*getattr(self, "moments", []), time.perf_counter()]

    def on_train_epoch_end(self) -> None:
        """The end of the last step."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.moments.append(time.perf_counter())


def training_run(
    module: type[AdversarialTraining],
    objective: Objective,
    depths: tuple[int, ...],
    widths: tuple[int, ...],
    batch_size: int,
    steps: int,
    begin: Callable[[Any], None] | None = None,
    **trainer: Any,
) -> AdversarialTraining:
    """The module after one epoch of `steps` batches of random images in the real training loop.

    begin: called with the module before the first step. trainer: keys of the group; not compiled unless asked.
    """
    settings = TrainerSettings(max_epochs=1, progress_bar=False, **trainer)
    recipe = Recipe(
        name="benchmark",
        epochs=1,
        batch_size=batch_size,
        optimizer=partial(torch.optim.SGD, lr=0.01, momentum=0.9, weight_decay=2e-4),
        schedule=Steps(milestones=[0.75], factor=0.1),
        augment=CropFlip(),
        gradient_clip=5.0,
    )
    trained = module(
        network(depths, widths),
        objective,
        THREAT,
        recipe,
        PGD(steps=1, rel_step_size=1.0),
        epochs=1,
        steps_per_epoch=steps,
        max_value=255,
        seed=0,
        attackable=settings.attackable,
        channels_last=settings.channels_last,
        compiled=settings.compile == "step",
        prepare=settings.prepare_process,
    )
    settings.prepare_process()
    data = StudyData(
        Splits(random_images(steps * batch_size), random_images(2, 1), random_images(2, 2)),
        batch_size=batch_size,
        drop_last=True,
        val_images=2,
        seed=0,
        place=settings.data,
    )
    if begin is not None:
        begin(trained)
    with tempfile.TemporaryDirectory() as folder:
        fit(trained, data, settings, folder=Path(folder), record=lambda _: None)
    return trained


def engine_steps(
    depths: tuple[int, ...],
    widths: tuple[int, ...],
    batch_size: int,
    steps: int,
    warm_up: int,
    objective: str = "sat",
    **trainer: Any,
) -> list[float]:
    """Seconds of each of `steps` - 1 training steps of the real training loop, after `warm_up` of them.

    The last one ends with the epoch and its validation, and is left out.
    """
    asked = (depths, widths, batch_size, steps + warm_up)
    module = training_run(Timed, OBJECTIVES[objective], *asked, **trainer)
    moments = cast(Timed, module).moments[warm_up:-1]
    return [after - before for before, after in pairwise(moments)]


def reference_steps(
    depths: tuple[int, ...], widths: tuple[int, ...], batch_size: int, steps: int, warm_up: int, objective: str = "sat"
) -> list[float]:
    """The same of the reference loop, with the time to fetch the batch."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net = network(depths, widths).to(device).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=2e-4)
    times = []
    batches = iter(reference.loader(random_images((steps + warm_up) * batch_size), batch_size))
    for number in range(steps + warm_up):
        started = time.perf_counter()
        x, y = next(batches)
        reference.training_step(net, optimizer, x.to(device), y.to(device), 10, objective)
        if number >= warm_up:
            times.append(time.perf_counter() - started)
    return times


def attacked_set(depths: tuple[int, ...], widths: tuple[int, ...], n: int) -> tuple[torch.nn.Module, ImageSet]:
    """A network and images of which it classifies the share RIGHT correctly."""
    net, images = network(depths, widths).eval(), random_images(n)
    with torch.no_grad():
        said = torch.cat([net(part.float() / 255).argmax(dim=1) for part in images.images.split(100)])
    said[int(RIGHT * n) :] = (said[int(RIGHT * n) :] + 1) % 10
    return net, ImageSet(images.images, said, 10)


def engine_evaluation(depths: tuple[int, ...], widths: tuple[int, ...], n: int, margin: bool) -> float:
    """Seconds of pgd20 with all that is measured under it, or of cw40."""
    device = TrainerSettings(max_epochs=1).device
    TrainerSettings(max_epochs=1).prepare_process()
    net, images = attacked_set(depths, widths, n)
    net.to(device, memory_format=torch.channels_last)
    examples = select_examples(images, None)
    attack = PGD(steps=40, rel_step_size=0.1, loss=Margin()) if margin else PGD(steps=20, rel_step_size=0.1)
    logits = clean_logits(net, examples, device, 250)
    scene = Scene(net=net, threat=THREAT, device=device, batch_size=250, seed=0, attacked=AttackableNetwork(net))
    started = time.perf_counter()
    run_attack(scene, examples, NamedAttack("benchmark", attack, describe(attack)), logits, measure=not margin)
    return time.perf_counter() - started


def reference_evaluation(depths: tuple[int, ...], widths: tuple[int, ...], n: int, margin: bool) -> float:
    """The same by the reference."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net, images = attacked_set(depths, widths, n)
    net.to(device)
    x, y = (images.images.float() / 255).to(device), images.labels.to(device)
    started = time.perf_counter()
    reference.evaluate(net, x, y, steps=40 if margin else 20, margin=margin, batch_size=128)
    return time.perf_counter() - started


def engine_loading(n: int, batch_size: int) -> float:
    """Seconds to cut and augment n images in batches, ready for the network."""
    images, augment = random_images(n), CropFlip()
    batches = GlobalBatches(n, batch_size, shuffle=True, drop_last=True)
    started = time.perf_counter()
    for x, _, index in loader(images, batches):
        augment(x, example_keys(0, index)).float() / 255
    return time.perf_counter() - started


def reference_loading(n: int, batch_size: int) -> float:
    """The same with pictures and worker processes."""
    batches = reference.loader(random_images(n), batch_size)
    started = time.perf_counter()
    for _ in batches:
        pass
    return time.perf_counter() - started


def matmul_rate(dtype: str, size: int = 4096) -> float:
    """TFLOP/s of a square matrix product, the median of five."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a, b = (torch.randn(size, size, device=device).to(getattr(torch, dtype)) for _ in range(2))
    times = []
    for _ in range(6):
        started = time.perf_counter()
        a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return 2 * size**3 / statistics.median(times[1:]) / 1e12


def compile_into(folder: str) -> None:
    """Keep what is compiled from now on in this folder."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder


def peak_mib() -> int:
    """Most memory of the host that this process has held."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def _serve(connection: Connection) -> None:
    try:
        while (asked := connection.recv()) is not None:
            function, arguments = asked
            connection.send(function(**arguments))
    except EOFError:  # the asking process was ended
        return


class Arm:
    """A process that does what it is asked, one thing at a time."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        # not a daemon: the reference's loader starts workers of its own
        self._process = context.Process(target=_serve, args=(theirs,))
        self._process.start()

    def __call__(self, function: Callable[..., Any], seconds: float = math.inf, **arguments: Any) -> Any:
        """What the function returns there.

        Raises:
            TimeoutError: if that takes longer than `seconds`; its process is then ended.
            RuntimeError: if its process ended.
        """
        deadline = time.monotonic() + seconds
        self._connection.send((function, arguments))
        while not self._connection.poll(min(1, max(0, deadline - time.monotonic()))):
            if not self._process.is_alive():
                raise RuntimeError(f"{function.__name__} ended its process, exit status {self._process.exitcode}")
            if time.monotonic() >= deadline:
                self._process.kill()
                self._process.join()
                raise TimeoutError
        return self._connection.recv()

    def __enter__(self) -> "Arm":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.is_alive():
            self._connection.send(None)
        self._process.join()
