"""How fast the runs of a plan will train, from the runs of the study that are recorded on this machine."""

import itertools
import socket
from collections.abc import Iterator
from typing import Any

from robust_arch.execution.run import Run
from robust_arch.runs import RunFolder, StudyFolder
from robust_arch.runs.provenance import hardware
from robust_arch.study.speed import Speed
from robust_arch.training.settings import TrainerSettings

_READ = 200  # records: to read the configuration of one takes some milliseconds


def recorded_speed(planned: Run, study: StudyFolder) -> Speed | None:
    """The speed of the recorded runs that differ from `planned` in architecture, seed and epochs at most.

    Only the newest 200 runs that were trained on this machine are read; None where none of them is such a run.
    """
    newest = itertools.islice(_finished_here(study), _READ)
    return Speed.of(
        (float(result["train_seconds"]), int(folder.status["run"]["macs"]), int(result["last_epoch"]) + 1)
        for folder, result in newest
        if _trains_alike(folder, result, planned)
    )


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


def _trains_alike(folder: RunFolder, result: dict[str, Any], planned: Run) -> bool:
    """Whether a recorded epoch did what an epoch of the planned run does, on the same images and as fast.

    Another machine may have written the record, so nothing that it names is built.
    """
    data, config, expected = result.get("data"), folder.recorded_config, planned.settings.resolved
    if not isinstance(data, dict) or data.get("fingerprint") != planned.training_fingerprint:
        return False
    try:
        trainer = {key: value for key, value in config["trainer"].items() if key != "_target_"}
        return (
            _pace(TrainerSettings(**trainer)) == _pace(planned.settings.trainer)
            and all(config[group] == expected[group] for group in ("objective", "selection"))
            and all(config["recipe"][key] == expected["recipe"][key] for key in ("batch_size", "drop_last"))
        )
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):  # recorded by another version
        return False


def _pace(trainer: TrainerSettings) -> tuple[Any, ...]:
    """What of the trainer decides how long an epoch takes."""
    place = (trainer.device, trainer.devices, trainer.threads)
    return (*place, trainer.precision, trainer.fold, trainer.channels_last, trainer.limit_train_batches)
