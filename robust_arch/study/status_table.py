"""The progress of a study as a person reads it."""

import contextlib
import time
from collections.abc import Iterator, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from robust_arch.runs import StudyFolder
from robust_arch.study.progress import RunProgress, StudyProgress

_MANY = 100  # runs; in larger studies, completed and planned runs are counted, not listed
_COLUMNS = ("run", "architecture", "seed", "state", "progress", "attempts", "held-out robust", "note")


def show(progress: StudyProgress, *, every_run: bool) -> Group:
    """Summary, table of runs, counts. every_run: list all, however many they are."""
    counts = ", ".join(f"{count} {state}" for state, count in progress.states.items())
    listed = _listed(progress.runs, every_run)
    parts: list[Text | Table] = [Text(line) for line in _summary(progress)]
    if listed or not progress.runs:
        parts.append(_table(progress, listed))
    if left_out := len(progress.runs) - len(listed):
        parts.append(Text(f"{left_out:,} completed and planned runs are not listed; --all lists them"))
    told = [Text(f"left out: {what}: {why}") for what, why in progress.left_out.items()]
    return Group(*parts, *told, Text(counts))


def summary_line(progress: StudyProgress) -> str:
    """Counts and time left."""
    states = progress.states
    counts = f"{states['completed']} done, " + ", ".join(
        f"{states[state]} {state}" for state in ("running", "failed", "diverged", "planned")
    )
    killed = f" ({progress.killed} of them killed)" if progress.killed else ""
    left = progress.time_left
    if left is None:
        return counts + killed
    basis = f"{left.completed} done, {left.at_once} at once"
    return f"{counts}{killed}; about {duration(left.seconds)} left ({basis})"


def duration(seconds: float) -> str:
    """Seconds as `2 h 10 min`."""
    minutes = round(seconds / 60)
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    hours = round(seconds / 3600)
    return f"{minutes // 60} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def follow(study: StudyFolder, console: Console, *, seconds: float, every_run: bool) -> None:
    """Show the study every `seconds` until all of it has ended or Ctrl-C.

    Where the output is no terminal, the summary line is printed whenever it has changed.
    """
    live = Live(console=console, auto_refresh=False) if console.is_terminal else None
    with contextlib.suppress(KeyboardInterrupt), live or contextlib.nullcontext():
        line = ""
        while True:
            progress = StudyProgress.read(study)
            if live:
                live.update(show(progress, every_run=every_run), refresh=True)
            elif line != (line := summary_line(progress)):
                console.print(line, highlight=False, soft_wrap=True)
            if progress.ended:
                return
            time.sleep(seconds)


def _summary(progress: StudyProgress) -> Iterator[str]:
    yield f"study {progress.name}: {summary_line(progress)}"
    if progress.launchers:
        yield "by launcher: " + ", ".join(f"{count} {name}" for name, count in progress.launchers.items())
    best = progress.best
    if best is not None and (result := best.record.result):
        run = f"{best.facts['arch']}, seed {best.facts['seed']}, run {best.run_id}"
        percent, n = result.best_val_robust_acc, result.selection_images
        yield f"best so far: {percent:.1f}% robust on held-out images (n={n}), {run}"


def _listed(runs: Sequence[RunProgress], every_run: bool) -> list[RunProgress]:
    """Running runs first, then failed, diverged and killed ones, then the rest unless there are too many."""
    listed = sorted(runs, key=lambda run: 0 if run.state == "running" else 1 if run.lost else 2)
    if every_run or len(runs) <= _MANY:
        return listed
    return [run for run in listed if run.state == "running" or run.lost]


def _table(progress: StudyProgress, listed: Sequence[RunProgress]) -> Table:
    table = Table(title=f"study {progress.name}")
    for column in _COLUMNS:
        table.add_column(column, overflow="fold")
    for run in listed:
        table.add_row(*map(Text, _row(run, progress)))
    return table


def _row(run: RunProgress, progress: StudyProgress) -> tuple[str, ...]:
    status, result = run.record.status, run.record.result
    return (
        run.run_id,
        str(run.facts.get("arch", "")),
        str(run.facts.get("seed", "")),
        run.state,
        _epochs(run, progress),
        str(status.attempts if status else 0),
        f"{result.best_val_robust_acc:.1f}% of {result.selection_images}" if result else "",
        "; ".join(filter(None, _notes(run))),
    )


def _epochs(run: RunProgress, progress: StudyProgress) -> str:
    """The progress of a running run and for how long it has run."""
    seconds = run.seconds_since_start(progress.now)
    if run.state != "running":
        return ""
    since = f", for {duration(seconds)}" if seconds is not None else ""
    return f"epoch {run.epochs_done} of {run.facts.get('epochs')}{since}"


def _notes(run: RunProgress) -> Iterator[str]:
    """How the run ended, the last line of its error, and warnings about its numbers."""
    record = run.record
    if run.lost and record.end:
        yield record.end.replace("_", " ")
    yield record.error
    yield from record.result.flags if record.result else ()
    for evaluation in record.evaluations:
        yield from (f"invalid evaluation: {why}" for why in evaluation.invalid)
    if run.weights_at:
        yield f"weights on {run.weights_at}"
    if not run.planned:
        yield "not in the current plan"
