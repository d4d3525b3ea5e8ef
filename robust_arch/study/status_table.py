"""The progress of a study as a person reads it."""

import contextlib
import time
from collections.abc import Iterator, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from robust_arch.common.progress import duration
from robust_arch.runs import StudyFolder
from robust_arch.study.progress import RunProgress, StudyProgress, epoch_at_work

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
    others = ("running", *(["evaluating"] if states["evaluating"] else []), "failed", "diverged", "planned")
    counts = f"{states['completed']} done, " + ", ".join(f"{states[state]} {state}" for state in others)
    killed = f" ({progress.killed} of them killed)" if progress.killed else ""
    left = progress.time_left
    if left is None:
        return counts + killed + "; its command is still running" * (progress.swept and progress.all_ended)
    basis = f"{left.completed} done, {left.at_once} at once"
    return f"{counts}{killed}; about {duration(left.seconds)} left ({basis})"


def follow(study: StudyFolder, console: Console, *, seconds: float, every_run: bool) -> None:
    """Show the study every `seconds` until all of it has ended, its finalists evaluated, or Ctrl-C.

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
    """Runs at work first, then failed, diverged and killed ones, then the rest unless there are too many."""
    listed = sorted(runs, key=lambda run: 0 if run.active else 1 if run.lost else 2)
    if every_run or len(runs) <= _MANY:
        return listed
    return [run for run in listed if run.active or run.lost]


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
    """The epoch of a run in training, and for how long a run has been trained or evaluated."""
    seconds = run.seconds_since_start(progress.now)
    since = "" if seconds is None else f"for {duration(seconds)}"
    if run.state != "running":
        return since
    epochs = run.facts.get("epochs")
    return f"{epoch_at_work(run.epochs_done, int(epochs) if epochs else None)}, {since}".rstrip(", ")


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
