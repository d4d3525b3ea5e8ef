"""What each `auto` of the trainer resolves to."""

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from robust_arch.common.progress import tell
from robust_arch.engine import decide_compile, missing_compiler
from robust_arch.execution.run import Run
from robust_arch.runs import RunFolder

log = logging.getLogger(__name__)


def with_choices(run: Run, folder: RunFolder) -> Run:
    """Resolve every `auto` of the trainer; a resumed run keeps its choices, a trained one its CPU threads too."""
    trainer = run.settings.trainer
    if folder.trained:
        trainer = replace(trainer, threads=trained_threads(folder.recorded_group("trainer")) or trainer.threads)
    if trainer.compile == "auto":
        trainer = replace(trainer, compile=_decide_compile(run, folder)[0])
    return replace(run, settings=replace(run.settings, trainer=trainer))


def trained_threads(trainer: Any) -> int | None:
    """`threads` of a recorded group `trainer`, whatever that holds, if this machine has as many cores."""
    threads = trainer.get("threads") if isinstance(trainer, Mapping) else None
    fits = isinstance(threads, int) and not isinstance(threads, bool) and 1 <= threads <= (os.cpu_count() or 1)
    return threads if fits else None


def tell_choices(asked: Run, folder: RunFolder) -> None:
    """Log what each `auto` of the trainer resolved to."""
    trainer = asked.settings.trainer
    if asked.settings.resolved["trainer"]["precision"] == "auto":
        tell(log, "trainer.precision=auto: %s on this hardware", trainer.precision)
    if trainer.compile == "auto":
        decided, reason = _decide_compile(asked, folder)
        tell(log, "trainer.compile=auto: %s (%s)", str(decided).lower(), reason)


def _decide_compile(run: Run, folder: RunFolder) -> tuple[bool | str, str]:
    """What `trainer.compile=auto` resolves to, and why."""
    trainer = run.settings.trainer
    if not trainer.fold:
        return False, "only the folded network is compiled"
    begun = folder.checkpoint("last").is_file()
    before = folder.recorded_group("trainer").get("compile") if begun else None
    if not isinstance(before, bool) and before != "step":
        steps = trainer.max_epochs * run.steps_per_epoch
        return decide_compile(trainer.device, steps, half=trainer.precision != 32)
    if before and (missing := missing_compiler(trainer.device)):
        return False, f"it was {str(before).lower()} when the run started, but {missing}"
    return before, "as when the run started"


def resolved_config(run: Run) -> dict[str, Any]:
    """The complete configuration of the run, with its architecture and seed."""
    settings = run.settings
    decided = {"precision": settings.trainer.precision, "compile": settings.trainer.compile}
    trainer = {**settings.resolved["trainer"], **decided}
    return {**settings.resolved, "arch": settings.spec.to_dict(), "seed": settings.seed, "trainer": trainer}
