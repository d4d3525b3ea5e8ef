"""How fast the runs of a plan will train, from the runs of the study that are recorded on this machine."""

import itertools
import socket
from collections.abc import Iterator
from typing import Any

from robust_arch.execution.run import Run
from robust_arch.runs import RecordedRun, StudyFolder
from robust_arch.runs.provenance import hardware
from robust_arch.study.speed import Speed
from robust_arch.training.settings import TrainerSettings

_READ = 200  # records: to read the configuration of one takes some milliseconds


def recorded_speed(planned: Run, study: StudyFolder) -> Speed | None:
    """The speed of the recorded runs that differ from `planned` in architecture, seed and epochs at most.

    Only the newest 200 runs that were trained on this machine are read; None where none of them is such a run.
    """
    alike = (run for run in itertools.islice(_finished_here(study), _READ) if _trains_alike(run, planned))
    return Speed.of(
        (run.result.train_seconds, run.facts.macs, run.result.last_epoch + 1)
        for run in alike
        if run.result and run.facts
    )


def _finished_here(study: StudyFolder) -> Iterator[RecordedRun]:
    """The runs that were trained on this machine, the newest first."""
    host, here = socket.gethostname(), _without_threads(hardware())
    for folder in sorted(study.runs(), key=lambda folder: folder.stamp, reverse=True):
        run = folder.read()
        recorded = run.result.hardware if run.result and run.status and run.status.host == host else None
        if recorded and _without_threads(recorded.plain()) == here:
            yield run


def _without_threads(facts: dict[str, Any]) -> dict[str, Any]:
    """The hardware alone; threads are the trainer's own setting."""
    return {**facts, "threads": None}


def _trains_alike(run: RecordedRun, planned: Run) -> bool:
    """Whether a recorded epoch did what an epoch of the planned run does, on the same images and as fast.

    Another machine may have written the record, so nothing that it names is built.
    """
    config, expected = run.folder.recorded_config, planned.settings.resolved
    data = run.result.data if run.result else None
    if data is None or data.fingerprint != planned.training_fingerprint:
        return False
    try:
        trainer = {key: value for key, value in config["trainer"].items() if key != "_target_"}
        return (
            _pace(TrainerSettings(**trainer)) == _pace(planned.settings.trainer)
            and all(config[group] == expected[group] for group in ("objective", "selection"))
            and all(config["recipe"][key] == expected["recipe"][key] for key in ("batch_size", "drop_last"))
            and config["recipe"].get("steps_per_epoch") == expected["recipe"].get("steps_per_epoch")
            and (config.get("extra") or {}).get("fraction") == (expected["extra"] or {}).get("fraction")
        )
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):  # recorded by another version
        return False


def _pace(trainer: TrainerSettings) -> tuple[Any, ...]:
    """What of the trainer decides how long an epoch takes."""
    place = (trainer.device, trainer.devices, trainer.threads)
    return (*place, trainer.precision, trainer.fold, trainer.channels_last, trainer.limit_train_batches)
