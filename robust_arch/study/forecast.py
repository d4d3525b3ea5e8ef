"""How long the runs of a plan will train, from the runs of the study that are recorded on this machine."""

import functools
import itertools
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import hydra
import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from robust_arch.architectures import ArchSpec, ImageShape
from robust_arch.attacks import Attack, ThreatModel
from robust_arch.common.identity import describe, short_hash
from robust_arch.common.paths import conf_dir
from robust_arch.configuration.nodes import instantiate, plain
from robust_arch.configuration.settings import Settings
from robust_arch.execution.run import Run
from robust_arch.objectives import Objective
from robust_arch.runs import RunFolder, StudyFolder
from robust_arch.runs.provenance import hardware
from robust_arch.training.module import ONE_STEP
from robust_arch.training.settings import TrainerSettings

_IMAGES = 4  # of the batch on which passes are counted
_RECORDS = 50  # so many runs tell a rate of two numbers as well as thousands
_READ = 200  # records whose configuration is read, at some milliseconds each, where many are of other settings

_counted: dict[str, tuple[float, float]] = {}  # passes by what decides them: most runs of a study share them


@dataclass
class Passes:
    """How often an image goes through the layers of a network, by what is computed; each costs the network's MACs."""

    forward: float = 0.0
    to_inputs: float = 0.0
    to_weights: float = 0.0

    @property
    def total(self) -> float:
        """All of them."""
        return self.forward + self.to_inputs + self.to_weights


class _CountedLayer(torch.autograd.Function):
    """x (B, D) times weight (K, D), whose uses are added to a `Passes`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, passes: Passes) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.passes = passes
        passes.forward += len(x) / _IMAGES
        return x @ weight.T

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        (gradient,) = gradients
        to_input, to_weight, _ = ctx.needs_input_grad
        ctx.passes.to_inputs += to_input * len(x) / _IMAGES
        ctx.passes.to_weights += to_weight * len(x) / _IMAGES
        return gradient @ weight if to_input else None, gradient.T @ x if to_weight else None, None


class _CountingNetwork(nn.Module):
    """A first layer, and behind it a counted one, which stands for all others.

    A step on the weights sends gradients to the counted layer's input too, as in any network of several layers.
    """

    def __init__(self, num_classes: int, image_shape: ImageShape) -> None:
        super().__init__()
        self.passes = Passes()
        self.first = nn.Parameter(torch.ones(()))
        weight = torch.linspace(-1, 1, num_classes * int(np.prod(image_shape))).sin()
        self.weight = nn.Parameter(weight.reshape(num_classes, -1))

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W). Returns logits (B, K)."""
        return cast(Tensor, _CountedLayer.apply((x * self.first).flatten(1), self.weight, self.passes))


def _batch(num_classes: int, image_shape: ImageShape) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.rand(_IMAGES, *image_shape, generator=torch.Generator().manual_seed(0))
    index = torch.arange(_IMAGES)
    return x, index % num_classes, index


def training_passes(objective: Objective, threat: ThreatModel, num_classes: int, image_shape: ImageShape) -> Passes:
    """Passes an image of one training step, counted by doing one."""
    net = _CountingNetwork(num_classes, image_shape).train()
    x, y, index = _batch(num_classes, image_shape)
    torch.autograd.backward(objective(net, x, y, threat, 0, index).total)
    return net.passes


def selection_passes(attack: Attack, threat: ThreatModel, num_classes: int, image_shape: ImageShape) -> Passes:
    """Passes a held-out image of one epoch's validation: clean, under `attack` and under one step."""
    net = _CountingNetwork(num_classes, image_shape).eval()
    x, y, index = _batch(num_classes, image_shape)
    net(x)
    for each in (attack, ONE_STEP):
        net(each(net, x, y, threat, index=index))
    return net.passes


@dataclass(frozen=True)
class Load:
    """What a training is to do. images: seen, over all epochs; work: multiply-accumulates."""

    images: float
    work: float


def _passes(run: Run) -> tuple[float, float]:
    """Passes an image of a training step, and of an epoch's validation."""
    settings, train = run.settings, run.splits.train
    task = (settings.threat, train.num_classes, train.image_shape)
    parts = [describe(part) for part in (settings.objective, settings.selection.attack, settings.threat)]
    key = short_hash([*parts, train.num_classes, list(train.image_shape)])
    if key not in _counted:
        training = training_passes(settings.objective, *task)
        _counted[key] = training.total, selection_passes(settings.selection.attack, *task).total
    return _counted[key]


def _load(run: Run, training: float, selection: float, epochs: int) -> Load:
    """The load, from passes an image of a training step and of a validation."""
    fitted = min(run.steps_per_epoch * run.settings.recipe.batch_size, len(run.splits.train))
    held_out = min(run.settings.selection.images, len(run.splits.val))
    work = (fitted * training + held_out * selection) * run.cost.macs
    return Load(images=epochs * (fitted + held_out), work=epochs * work)


@dataclass(frozen=True)
class Rate:
    """Seconds an image and seconds a multiply-accumulate."""

    an_image: float
    a_mac: float

    def seconds(self, load: Load) -> float:
        """How long a load takes."""
        return self.an_image * load.images + self.a_mac * load.work


def fit_rate(loads: Sequence[Load], seconds: Sequence[float]) -> Rate:
    """The least-squares rate that is not negative in either part; by work alone where the loads tell no difference."""
    table = np.array([[load.images, load.work] for load in loads], dtype=np.float64)
    scale = table.max(axis=0)
    table, target = table / scale, np.asarray(seconds, dtype=np.float64)
    answers = []
    for columns in ([1], [0], [0, 1]):  # of equals the first is taken: work explains what images explain as well
        found, _, rank, _ = np.linalg.lstsq(table[:, columns], target, rcond=1e-9)
        if rank == len(columns) and found.min() >= 0:
            rates = np.zeros(2)
            rates[columns] = found
            error = float(np.square(table @ rates - target).sum())
            answers.append((error, rates / scale))
    least = min(error for error, _ in answers)
    negligible = 1e-18 * float(np.square(target).sum())
    an_image, a_mac = next(rates for error, rates in answers if error <= least + negligible)
    return Rate(float(an_image), float(a_mac))


class Forecast:
    """Training times of the runs of a plan; None where no run of the study is recorded on this machine.

    Recorded runs count if they trained on the device and with the precision and threads of those planned, under their
    objective or one that this package configures: the newest 50 of them, among the newest 200 that were recorded on
    this machine.
    """

    def __init__(self, runs: Sequence[Run], study: StudyFolder) -> None:
        self.rate = _recorded_rate(runs[0], study)
        self._passes = _passes(runs[0])  # the runs of a plan differ in architecture and seed alone

    def seconds(self, run: Run) -> float | None:
        """How long a run of the plan will train, in seconds."""
        if self.rate is None:
            return None
        return self.rate.seconds(_load(run, *self._passes, run.settings.trainer.max_epochs))


def _recorded_rate(planned: Run, study: StudyFolder) -> Rate | None:
    candidates = itertools.islice(_finished_here(study), _READ)
    found = (_recorded(folder, result, planned) for folder, result in candidates)
    recorded = list(itertools.islice((each for each in found if each is not None), _RECORDS))
    return fit_rate([load for load, _ in recorded], [seconds for _, seconds in recorded]) if recorded else None


def _finished_here(study: StudyFolder) -> Iterator[tuple[RunFolder, dict[str, Any]]]:
    """The runs that were trained on this machine, with their results, the newest first."""
    host, here = socket.gethostname(), _without_threads(hardware())
    for folder in sorted(study.runs(), key=lambda folder: folder.stamp, reverse=True):
        if folder.status.get("host") != host:
            continue
        result = folder.result
        if result is not None and _without_threads(result.get("hardware", {})) == here:
            yield folder, result


def _without_threads(facts: dict[str, Any]) -> dict[str, Any]:
    """The hardware alone; threads are the trainer's own setting."""
    return {**facts, "threads": None}


def _recorded(folder: RunFolder, result: dict[str, Any], planned: Run) -> tuple[Load, float] | None:
    """Load and seconds of a recorded training, if it ran as the planned one would, on this data."""
    data = result.get("data")
    if not isinstance(data, dict) or data.get("fingerprint") != planned.training_fingerprint:
        return None
    try:
        settings = _recorded_settings(folder.recorded_config, planned.settings)
        if settings is None or _speed_settings(settings.trainer) != _speed_settings(planned.settings.trainer):
            return None
        run = Run(settings, planned.splits, planned.training_fingerprint)
        return _load(run, *_passes(run), int(result["last_epoch"]) + 1), float(result["train_seconds"])
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):  # recorded by another version
        return None


def _recorded_settings(config: dict[str, Any], planned: Settings) -> Settings | None:
    """The planned settings with what decides the load as a configuration records it, or None if it cannot be told.

    The record may be another machine's, so that nothing it names is built: objective and selection are known by being
    those of the plan, or an objective of this package.
    """
    objective = _known_objective(config["objective"], planned)
    if objective is None or config["selection"] != planned.resolved["selection"]:
        return None
    trainer = {key: value for key, value in config["trainer"].items() if key != "_target_"}
    recipe = {key: config["recipe"][key] for key in ("batch_size", "drop_last")}
    return replace(
        planned,
        spec=ArchSpec.from_dict(config["arch"]),
        objective=objective,
        recipe=replace(planned.recipe, **recipe),
        trainer=TrainerSettings(**trainer),
    )


def _known_objective(recorded: dict[str, Any], planned: Settings) -> Objective | None:
    if recorded == planned.resolved["objective"]:
        return planned.objective
    shipped = _shipped_objectives().get(str(recorded.get("name")))
    if shipped is None or recorded != plain(shipped, "objective"):
        return None
    return cast(Objective, instantiate(shipped, "objective"))


@functools.cache
def _shipped_objectives() -> dict[str, DictConfig]:
    """The objectives of this package's configuration, by name."""
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        files = sorted((conf_dir() / "objective").glob("*.yaml"))
        return {file.stem: hydra.compose(f"objective/{file.stem}").objective for file in files}


def _speed_settings(trainer: TrainerSettings) -> tuple[Any, ...]:
    """What of the trainer decides how fast it is."""
    return (trainer.device, trainer.devices, trainer.precision, trainer.threads, trainer.fold, trainer.channels_last)
