"""One run from start to end: claim, train, select, evaluate, record."""

import contextlib
import logging
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import yaml

from robust_arch import __version__
from robust_arch.analysis.report.card import write_card
from robust_arch.architectures import arch_name, build
from robust_arch.common.files import write_text
from robust_arch.common.progress import prefixed
from robust_arch.common.randomness import derive
from robust_arch.errors import DivergedError
from robust_arch.evaluation import EvaluationRecord, extend
from robust_arch.execution.choices import resolved_config, tell_choices, with_choices
from robust_arch.execution.gpus import claimed, visible_gpus
from robust_arch.execution.loggers import build_loggers
from robust_arch.execution.result import training_result
from robust_arch.execution.resume import resumable_rows
from robust_arch.execution.run import Run
from robust_arch.interop import load_checkpoint
from robust_arch.runs import RunFolder, metrics
from robust_arch.runs.failure_causes import how_it_ended
from robust_arch.runs.folder import last_line
from robust_arch.runs.provenance import provenance
from robust_arch.tracking.attacked_images import attacked_images
from robust_arch.tracking.columns import run_columns, run_name, run_summary, run_tags
from robust_arch.tracking.lightning_loggers import LoggerTracker
from robust_arch.tracking.tracker import Tracker, Trackers, WandbTracker

if TYPE_CHECKING:
    from pytorch_lightning.loggers import Logger

    from robust_arch.training.module import AdversarialTraining

log = logging.getLogger(__name__)


def execute(run: Run) -> str:
    """Complete the run and return its state; a failure is recorded and not raised.

    Raises:
        InputError: for a logger that cannot be built, before anything is recorded.
        OSError: if nothing can be recorded, for example on a full disk.
    """
    folder, loggers = run.folder, build_loggers(run)
    stops = run.settings.planned and run.settings.stop_on_failure  # a stop that only the next sweep undoes
    if stops and run.study.is_stopped:
        log.warning("run %s is not started: the study was stopped after a failure", run.run_id)
        return folder.state
    with folder.lock() as mine:
        if not mine:
            host = folder.status.host if folder.status else "this machine"
            log.warning("run %s is being trained by another process (%s)", run.run_id, host)
            return "running"
        if run.settings.rerun:
            folder.clear()
        elif folder.state == "diverged":
            log.error("run %s diverged before and is not tried again; rerun=true forces it", run.run_id)
            return "diverged"
        elif run.is_done():
            warn_of_other_version(folder)
            log.info("run %s is done already: %s", run.run_id, folder.path)
            return "completed"
        else:
            folder.require_weights()
        with _on_free_gpus(run) as placed:
            state = _execute_locked(placed, folder, loggers)
    if stops and state in ("failed", "diverged"):
        run.study.stop()
    if run.settings.planned:
        run.study.refresh_results()
    else:
        run.study.write_results()
    return state


@contextlib.contextmanager
def _on_free_gpus(run: Run) -> Iterator[Run]:
    """Place the run on the GPUs of this machine with the fewest runs."""
    trainer = run.settings.trainer
    if trainer.device.type == "cpu" or trainer.gpus is not None:
        yield run
        return
    with claimed(visible_gpus(torch.cuda.device_count()), trainer.devices) as gpus:
        torch.cuda.set_device(gpus[0])
        yield replace(run, settings=replace(run.settings, trainer=replace(trainer, gpus=gpus)))


def warn_of_other_version(folder: RunFolder) -> None:
    """Log it if another version of the package recorded the run."""
    recorded = folder.result.package_version if folder.result else None
    if recorded != __version__:
        log.warning("run %s: recorded by version %s of robust_arch, this is %s", folder.run_id, recorded, __version__)


@dataclass(frozen=True)
class _End:
    """How an attempt ended.

    Attributes:
        state: the run's state from now on.
        outcome: of the attempt.
        raised: the exception that ended it.
        error: its text.
    """

    state: str
    outcome: str
    raised: BaseException | None = None
    error: str | None = None


def _execute_locked(run: Run, folder: RunFolder, loggers: Mapping[str, "Logger"]) -> str:
    """Attempt the run and record how it ended."""
    folder.sweep_up()
    asked, run = run, with_choices(run, folder)
    # a completed run stays completed while an attack is added, even if that fails
    before = "completed" if folder.trained and folder.state == "completed" else "planned"
    notes = {"launcher": run.settings.launcher}
    if before == "completed":  # its configuration and attempts are those of the training
        folder.write_state("completed", run.facts, notes=notes)
    else:
        folder.write_state("running", run.facts, attempt=True, notes=notes)
        write_text(folder.config, yaml.safe_dump(resolved_config(run), sort_keys=False))
    folder.reserve_room()
    tracker = _tracker(run, folder, loggers)
    raised: BaseException | None = None
    with _log_file(folder), prefixed(run.facts.short_name):
        if not folder.trained:
            tell_choices(asked, folder)
        try:
            _train(run, folder, tracker, list(loggers.values()))
            _evaluate(run, folder)
            if count := run.settings.logger.get("images"):
                tracker.log_images(attacked_images(folder.read(), run.splits.test, count))
        except Exception as failure:
            raised = failure
        except BaseException as interruption:
            raised = interruption
            raise
        finally:
            ended = _end(raised, before)
            _record_end(run, folder, tracker, ended, notes)
    return ended.outcome


def _end(raised: BaseException | None, before: str) -> _End:
    if raised is None:
        return _End("completed", "completed")
    if not isinstance(raised, Exception):
        return _End(before, "interrupted", raised, f"interrupted: {type(raised).__name__}")
    error = "".join(traceback.format_exception(raised))
    if isinstance(raised, DivergedError):
        return _End("diverged", "diverged", raised, error)
    return _End("completed" if before == "completed" else "failed", "failed", raised, error)


def _record_end(run: Run, folder: RunFolder, tracker: Tracker, ended: _End, notes: dict[str, Any]) -> None:
    end, error = how_it_ended(ended.raised), ended.error
    if ended.outcome in ("failed", "diverged"):
        log.error("run %s %s (%s):\n%s", run.run_id, ended.outcome, end, error)
    with _unless_disk_full(run):
        folder.release_room()
        if end == "disk_full" and error is not None:
            error = last_line(error)
        tracker.finish(run_summary(folder, ended.outcome), failed=ended.outcome != "completed")
        notes["tracking"] = tracker.problem
        folder.write_state(ended.state, run.facts, error=error, end=end, notes=notes)


@contextlib.contextmanager
def _unless_disk_full(run: Run) -> Iterator[None]:
    """Log an OSError instead of raising it, so that the run's own error is reported."""
    try:
        yield
    except OSError as error:
        log.error("run %s: its end cannot be recorded: %s", run.run_id, error)


def _tracker(run: Run, folder: RunFolder, loggers: Mapping[str, "Logger"]) -> Tracker:
    logger, facts = run.settings.logger, run.facts
    config = {} if logger["name"] == "csv" and not loggers else _tracked_config(run, folder)
    trackers: list[Tracker] = [LoggerTracker(name, logger, config) for name, logger in loggers.items()]
    if logger["name"] == "wandb":
        wandb = WandbTracker(
            folder.path,
            run_id=run.run_id,
            name=run_name(facts),
            group=facts.study,
            tags=run_tags(facts),
            config=config,
            project=logger["project"],
            mode=logger["mode"],
        )
        trackers.append(wandb)
    return Trackers(trackers)


def _tracked_config(run: Run, folder: RunFolder) -> dict[str, Any]:
    """The run's configuration, command and commit; of a trained run those of its training, as they are recorded."""
    columns = run_columns(run.facts, run.settings.spec, run.cost, run.settings.threat.eps)
    if folder.trained and (result := folder.result):
        config, command, commit = folder.recorded_config, result.command, result.commit
    else:
        config, command, commit = resolved_config(run), run.settings.command, provenance()["commit"]
    return {**config, **columns, "command": command, "commit": commit}


class _RunLog(logging.FileHandler):
    """train.log; a full disk loses lines but does not fail the run."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Drop the line; standard error has it."""

    def close(self) -> None:
        """Close without raising."""
        with contextlib.suppress(OSError):
            super().close()


@contextlib.contextmanager
def _log_file(folder: RunFolder) -> Iterator[None]:
    """Copy everything that is logged to the run's train.log."""
    handler = _RunLog(folder.log, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()


def _train(run: Run, folder: RunFolder, tracker: Tracker, loggers: Sequence["Logger"]) -> None:
    """Train from where the last attempt was interrupted, and record the result, unless that is done."""
    settings = run.settings
    settings.trainer.prepare_process()
    rows = resumable_rows(folder)
    tracker.start(rows)
    if folder.trained:
        return
    # Lightning takes longer to import than all else, and a run that is trained needs none of it
    from robust_arch.training.datamodule import StudyData
    from robust_arch.training.fit import fit

    module = _module(run)
    data = StudyData(
        run.splits,
        batch_size=settings.recipe.batch_size,
        drop_last=settings.recipe.drop_last,
        val_images=settings.selection.images,
        seed=settings.seed,
        place=settings.trainer.data,
        steps=settings.recipe.steps_per_epoch,
    )
    log.info(
        "run %s: %s, %s parameters, %s MACs, %s on %s, %s, seed %d, %d epochs",
        run.run_id, arch_name(settings.spec), f"{run.cost.params:,}", f"{run.cost.macs:,}", settings.objective.label,
        settings.dataset.name, settings.threat, settings.seed, settings.trainer.max_epochs,
    )  # fmt: skip
    averaging = settings.recipe.averaging
    if averaging and (warning := averaging.warning(settings.trainer.max_epochs)):
        log.warning("run %s: %s", run.run_id, warning)
    record = _Recorder(folder, tracker)
    fit(module, data, settings.trainer, folder=folder.checkpoints, record=record, loggers=loggers)
    recorded = metrics.read_rows(folder.metrics)
    for row in recorded[len(rows) + record.tracked :]:  # rows of processes without a tracker
        tracker.log(row)
    folder.write_result(training_result(run, folder, recorded))


class _Recorder:
    """Appends a row with its time to metrics.csv and passes it to the tracker; counts the rows that it tracked."""

    def __init__(self, folder: RunFolder, tracker: Tracker) -> None:
        self.folder, self.tracker, self.tracked = folder, tracker, 0

    def __call__(self, row: dict[str, float]) -> None:
        row = {**row, "time": round(time.time(), 3)}
        metrics.append_row(self.folder.metrics, row)
        self.tracker.log(row)
        self.tracked += 1


def _module(run: Run) -> "AdversarialTraining":
    from robust_arch.training.module import AdversarialTraining

    settings, train = run.settings, run.splits.train
    mean, std = train.channel_statistics() if settings.recipe.normalize == "dataset" else (None, None)
    averaging = settings.recipe.averaging
    return AdversarialTraining(
        build(
            settings.spec,
            train.num_classes,
            train.image_shape,
            mean=mean,
            std=std,
            seed=derive(settings.seed, "initialisation"),
        ),
        settings.objective.for_network(settings.spec),
        settings.threat,
        settings.recipe,
        settings.selection.attack,
        epochs=settings.trainer.max_epochs,
        steps_per_epoch=run.steps_per_epoch,
        max_value=train.max_value,
        seed=settings.seed,
        num_classes=train.num_classes,
        attackable=settings.trainer.attackable,
        channels_last=settings.trainer.channels_last,
        compiled=settings.trainer.compile == "step",
        prepare=settings.trainer.prepare_process,
        card={
            "schema": 1,
            "package_version": __version__,
            "run_id": run.run_id,
            "arch": settings.spec.to_dict(),
            "num_classes": train.num_classes,
            "image_shape": list(train.image_shape),
            "config": resolved_config(run),
            **({"weights": averaging.selected} if averaging else {}),
        },
    )


def _evaluate(run: Run, folder: RunFolder) -> None:
    """Evaluate the requested weights of each checkpoint under the attacks that are not recorded yet."""
    settings, device = run.settings.evaluation, run.settings.trainer.device
    result = folder.result
    same_epoch = result is not None and result.best_epoch == result.last_epoch
    first: dict[str, EvaluationRecord] = {}
    about = {"command": run.settings.command, **provenance()}
    for subject, record in run.records():
        which, weights = subject.checkpoint, subject.weights
        if same_epoch and weights in first and not settings.save_images:
            if not record.is_complete(settings):
                record.take_over(first[weights])
            continue
        first[weights] = record
        loaded = load_checkpoint(folder.checkpoint(which), expected=run.settings.spec, weights=weights)
        extend(
            record, loaded.net.to(device), settings, run.settings.threat, device, about, fold=run.settings.trainer.fold
        )
        level = logging.ERROR if record.invalid else logging.INFO
        log.log(level, "run %s, %s: %s", run.run_id, record.described, record.summary())
        for warning in record.content["warnings"]:
            log.warning("run %s, %s: %s", run.run_id, record.described, warning)
    write_card(folder)
