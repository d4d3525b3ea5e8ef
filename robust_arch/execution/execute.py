"""One run from start to end: claim it, train, select, evaluate, record."""

import contextlib
import logging
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import yaml

from robust_arch import __version__
from robust_arch.analysis.report.card import write_card
from robust_arch.architectures import arch_name, build
from robust_arch.common.files import write_text
from robust_arch.common.randomness import derive
from robust_arch.engine import decide_compile, missing_compiler
from robust_arch.errors import DivergedError
from robust_arch.evaluation import EvaluationRecord, extend
from robust_arch.execution.gpus import claimed, visible_gpus
from robust_arch.execution.run import Run
from robust_arch.interop import load_checkpoint
from robust_arch.interop.reading import read_weights_only
from robust_arch.runs import RunFolder, metrics
from robust_arch.runs.failure_causes import how_it_ended
from robust_arch.runs.folder import last_line
from robust_arch.runs.provenance import provenance
from robust_arch.tracking.columns import run_columns, run_name, run_summary, run_tags
from robust_arch.tracking.tracker import Tracker, WandbTracker
from robust_arch.training.datamodule import StudyData
from robust_arch.training.fit import fit
from robust_arch.training.flags import training_flags
from robust_arch.training.module import AdversarialTraining

log = logging.getLogger(__name__)


def execute(run: Run) -> str:
    """Do whatever of the run is not done yet; returns its state, and never raises for what is recorded as failed.

    Raises:
        OSError: if nothing can be recorded, on a full disk for example.
    """
    folder = run.folder
    stops = run.settings.planned and run.settings.stop_on_failure  # a mark that only a sweep takes back
    if stops and run.study.is_stopped:
        log.warning("run %s does not begin: the study is stopped on failure", run.run_id)
        return folder.state
    with folder.lock() as mine:
        if not mine:
            log.warning("run %s is being done by another process (%s)", run.run_id, folder.status.get("host"))
            return "running"
        if run.settings.rerun:
            folder.clear()
        elif folder.state == "diverged":
            log.error("run %s diverged before and is not tried again; rerun=true forces", run.run_id)
            return "diverged"
        elif run.is_done():
            warn_of_other_version(folder)
            log.info("run %s is done already: %s", run.run_id, folder.path)
            return "completed"
        else:
            folder.require_weights()
        with _on_free_gpus(run) as placed:
            state = _execute_locked(placed, folder)
    if stops and state in ("failed", "diverged"):
        run.study.stop()
    if run.settings.planned:
        run.study.refresh_results()
    else:
        run.study.write_results()
    return state


@contextlib.contextmanager
def _on_free_gpus(run: Run) -> Iterator[Run]:
    """The run on GPUs that no other run of this machine has taken, as far as there are enough."""
    trainer = run.settings.trainer
    if trainer.device.type == "cpu" or trainer.gpus is not None:
        yield run
        return
    with claimed(visible_gpus(torch.cuda.device_count()), trainer.devices) as gpus:
        torch.cuda.set_device(gpus[0])
        yield replace(run, settings=replace(run.settings, trainer=replace(trainer, gpus=gpus)))


def warn_of_other_version(folder: RunFolder) -> None:
    """Name a run that an earlier or later version of the package recorded."""
    recorded = (folder.result or {}).get("package_version")
    if recorded != __version__:
        log.warning("run %s: recorded by version %s of robust_arch, this is %s", folder.run_id, recorded, __version__)


@dataclass(frozen=True)
class _End:
    """How an attempt ended: the run's state from now on, what became of the attempt, what was raised and its text."""

    state: str
    outcome: str
    raised: BaseException | None = None
    error: str | None = None


def _execute_locked(run: Run, folder: RunFolder) -> str:
    """Attempt the run, and write at once how it ended."""
    folder.sweep_up()
    asked, run = run, with_choices(run, folder)
    # what is completed stays so while an attack is added to it, also if that fails
    before = "completed" if folder.trained and folder.state == "completed" else "planned"
    notes = {"launcher": run.settings.launcher}
    folder.write_state("completed" if before == "completed" else "running", run.facts, attempt=True, notes=notes)
    write_text(folder.config, yaml.safe_dump(_resolved_config(run), sort_keys=False))
    folder.reserve_room()
    tracker = _tracker(run, folder)
    raised: BaseException | None = None
    with _log_file(folder):
        if not folder.trained:
            _tell_choices(asked, folder)
        try:
            _train(run, folder, tracker)
            _evaluate(run, folder)
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
    """What cannot be written is said; the run's error is what ends it."""
    try:
        yield
    except OSError as error:
        log.error("run %s: how it ended cannot be recorded: %s", run.run_id, error)


def with_choices(run: Run, folder: RunFolder) -> Run:
    """The run with every `auto` of its trainer decided; one that goes on decides as it did when it began."""
    trainer = run.settings.trainer
    if trainer.compile == "auto":
        trainer = replace(trainer, compile=_decide_compile(run, folder)[0])
    return replace(run, settings=replace(run.settings, trainer=trainer))


def _tell_choices(asked: Run, folder: RunFolder) -> None:
    """Log what each `auto` of the trainer became."""
    trainer = asked.settings.trainer
    if asked.settings.resolved["trainer"]["precision"] == "auto":
        log.info("trainer.precision=auto: %s on this hardware", trainer.precision)
    if trainer.compile == "auto":
        decided, reason = _decide_compile(asked, folder)
        log.info("trainer.compile=auto: %s (%s)", str(decided).lower(), reason)


def _decide_compile(run: Run, folder: RunFolder) -> tuple[bool, str]:
    """What `trainer.compile=auto` means for the run, and why."""
    trainer = run.settings.trainer
    if not trainer.fold:
        return False, "only the folded form is compiled"
    begun = folder.checkpoint("last").is_file()
    before = folder.recorded_group("trainer").get("compile") if begun else None
    if not isinstance(before, bool):
        steps = trainer.max_epochs * run.steps_per_epoch
        return decide_compile(trainer.device, steps, half=trainer.precision != 32)
    if before and (missing := missing_compiler(trainer.device)):
        return False, f"true when the run began, but {missing}"
    return before, "as when the run began"


def _resolved_config(run: Run) -> dict[str, Any]:
    """The whole configuration as it was used, with this member's architecture and seed."""
    settings = run.settings
    decided = {"precision": settings.trainer.precision, "compile": settings.trainer.compile}
    trainer = {**settings.resolved["trainer"], **decided}
    return {**settings.resolved, "arch": settings.spec.to_dict(), "seed": settings.seed, "trainer": trainer}


def _tracker(run: Run, folder: RunFolder) -> Tracker:
    logger = run.settings.logger
    if logger["name"] == "csv":
        return Tracker()
    facts = run.facts
    return WandbTracker(
        folder.path,
        run_id=run.run_id,
        name=run_name(facts),
        group=facts.study,
        tags=run_tags(facts),
        config={**_resolved_config(run), **run_columns(facts, run.settings.spec, run.cost, run.settings.threat.eps)},
        project=logger["project"],
        mode=logger["mode"],
    )


class _RunLog(logging.FileHandler):
    """train.log, which is no reason for a run to fail where the disk is full."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Lose the line; standard error has it."""

    def close(self) -> None:
        """Close; what could not be written is lost."""
        with contextlib.suppress(OSError):
            super().close()


@contextlib.contextmanager
def _log_file(folder: RunFolder) -> Iterator[None]:
    """Everything logged goes to the run's train.log too."""
    handler = _RunLog(folder.log, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()


def _train(run: Run, folder: RunFolder, tracker: Tracker) -> None:
    """Train from where the last attempt was cut off, and record the result; nothing if that is done."""
    settings = run.settings
    settings.trainer.prepare_process()
    rows = _resumable_rows(folder)
    tracker.start(rows)
    if folder.trained:
        return
    module = _module(run)
    data = StudyData(
        run.splits,
        batch_size=settings.recipe.batch_size,
        drop_last=settings.recipe.drop_last,
        val_images=settings.selection.images,
        seed=settings.seed,
        place=settings.trainer.data,
    )
    log.info(
        "run %s: %s, %s parameters, %s MACs, %s on %s, %s, seed %d, %d epochs",
        run.run_id, arch_name(settings.spec), f"{run.cost.params:,}", f"{run.cost.macs:,}", settings.objective.name,
        settings.dataset.name, settings.threat, settings.seed, settings.trainer.max_epochs,
    )  # fmt: skip
    record = _Recorder(folder, tracker)
    fit(module, data, settings.trainer, folder=folder.checkpoints, record=record)
    recorded = metrics.read_rows(folder.metrics)
    for row in recorded[len(rows) + record.tracked :]:  # rows of other processes, which have no tracker
        tracker.log(row)
    folder.write_result(_result(run, folder, recorded))


class _Recorder:
    """Appends a row to metrics.csv and hands it to the tracker; counts what this process tracked."""

    def __init__(self, folder: RunFolder, tracker: Tracker) -> None:
        self.folder, self.tracker, self.tracked = folder, tracker, 0

    def __call__(self, row: dict[str, float]) -> None:
        metrics.append_row(self.folder.metrics, row)
        self.tracker.log(row)
        self.tracked += 1


def _resumable_rows(folder: RunFolder) -> list[dict[str, float]]:
    """The rows of the epochs that the last checkpoint holds, cut back to them.

    A checkpoint that cannot be read, or whose best.ckpt or rows are lost, is removed: training starts again. So is one
    from the middle of an epoch that does not follow these.
    """
    last, interrupted = folder.checkpoint("last"), folder.checkpoint("interrupted")
    epochs = _epoch(last) + 1
    rows = metrics.keep_epochs_before(folder.metrics, epochs)
    if last.is_file() and not (0 < epochs == len(rows) and _epoch(folder.checkpoint("best")) >= 0):
        log.warning("run %s is not whole and starts again", folder.run_id)
        last.unlink()
        epochs, rows = 0, metrics.keep_epochs_before(folder.metrics, 0)
    if interrupted.is_file() and _epoch(interrupted) != epochs:
        interrupted.unlink()
    return rows


def _epoch(checkpoint: Path) -> int:
    """The epoch, counted from 0, that a checkpoint was written in; -1 if there is none or it cannot be read."""
    if not checkpoint.is_file():
        return -1
    try:
        return int(read_weights_only(checkpoint)["epoch"])
    except (ValueError, KeyError, TypeError) as error:
        log.warning("%s cannot be read: %s", checkpoint, error)
        return -1


def _module(run: Run) -> AdversarialTraining:
    settings, train = run.settings, run.splits.train
    mean, std = train.channel_statistics() if settings.recipe.normalize == "dataset" else (None, None)
    return AdversarialTraining(
        build(
            settings.spec,
            train.num_classes,
            train.image_shape,
            mean=mean,
            std=std,
            seed=derive(settings.seed, "initialisation"),
        ),
        settings.objective,
        settings.threat,
        settings.recipe,
        settings.selection.attack,
        epochs=settings.trainer.max_epochs,
        steps_per_epoch=run.steps_per_epoch,
        max_value=train.max_value,
        seed=settings.seed,
        attackable=settings.trainer.attackable,
        channels_last=settings.trainer.channels_last,
        prepare=settings.trainer.prepare_process,
        card={
            "schema": 1,
            "package_version": __version__,
            "run_id": run.run_id,
            "arch": settings.spec.to_dict(),
            "num_classes": train.num_classes,
            "image_shape": list(train.image_shape),
            "config": _resolved_config(run),
        },
    )


def _result(run: Run, folder: RunFolder, rows: list[dict[str, float]]) -> Mapping[str, Any]:
    """result.json of a finished training."""
    callbacks = read_weights_only(folder.checkpoint("last"))["callbacks"]
    best = callbacks["BestAndLast"]["best"]
    held_out = min(run.settings.selection.images, len(run.splits.val))
    flags = training_flags(rows, run.splits.train.num_classes, held_out)
    for flag in flags:
        log.warning("run %s %s", run.run_id, flag)
    gap = best["val_robust_acc"] - rows[-1]["val_robust_acc"]
    log.info("run %s: best epoch %d; robust overfitting %.1f points", run.run_id, int(best["epoch"]) + 1, gap)
    return {
        "run_id": run.run_id,
        "command": run.settings.command,
        **provenance(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "train_seconds": round(sum(row["seconds"] for row in rows), 3),
        "epochs": run.settings.trainer.max_epochs,
        "best_epoch": int(best["epoch"]),
        "last_epoch": int(rows[-1]["epoch"]),
        "best_val_robust_acc": best["val_robust_acc"],
        "last_val_robust_acc": rows[-1]["val_robust_acc"],
        "robust_overfitting": gap,
        "flags": flags,
        "seeds": {"seed": run.settings.seed, "split_seed": run.settings.dataset.split_seed},
        "data": {
            "name": run.settings.dataset.name,
            "fingerprint": run.training_fingerprint,
            "train": len(run.splits.train),
            "val": len(run.splits.val),
            "test": len(run.splits.test),
            **_readings(run),
        },
        "selection_images": held_out,
        "cost": asdict(run.cost),
    }


def _readings(run: Run) -> dict[str, Any]:
    """How the files of the training set, the held-out part included, and of the test set were read, if files were."""
    sets = {"train": run.splits.train, "test": run.splits.test}
    readings = {part: asdict(images.reading) for part, images in sets.items() if images.reading}
    return {"reading": readings} if readings else {}


def _evaluate(run: Run, folder: RunFolder) -> None:
    """Every checkpoint that is asked for, under what is not recorded yet."""
    settings, device = run.settings.evaluation, run.settings.trainer.device
    result = folder.result or {}
    same_weights = result["best_epoch"] == result["last_epoch"]
    first: EvaluationRecord | None = None
    about = {"command": run.settings.command, **provenance()}
    for which, record in run.records():
        if same_weights and first is not None and not settings.save_images:
            if not record.is_complete(settings):
                record.take_over(first)
            continue
        first = record
        loaded = load_checkpoint(folder.checkpoint(which), expected=run.settings.spec)
        extend(
            record, loaded.net.to(device), settings, run.settings.threat, device, about, fold=run.settings.trainer.fold
        )
        level = logging.ERROR if record.invalid else logging.INFO
        log.log(level, "run %s, %s checkpoint: %s", run.run_id, which, record.summary())
        for warning in record.content["warnings"]:
            log.warning("run %s, %s checkpoint: %s", run.run_id, which, warning)
    write_card(folder)
