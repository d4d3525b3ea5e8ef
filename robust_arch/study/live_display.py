"""The live display of a study in a terminal: one line for the study, one for each run that is at work."""

import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID
from rich.table import Column
from rich.text import Text

from robust_arch.common.process import console_is_terminal, drawing_on_console
from robust_arch.common.progress import duration
from robust_arch.runs.metrics import read_rows
from robust_arch.study.plan import PlannedRun
from robust_arch.study.progress import RunProgress, epoch_at_work

_SECONDS = 1.0  # between two looks at the runs
_TAIL = 4096  # bytes at the end of train.log that hold its last line
_LOG_LINE = re.compile(r"\S+ \S+ [A-Z]+ [\w.]+: (?P<message>.*)")  # as `train.log` is formatted


@contextmanager
def live_display(planned: Sequence[PlannedRun], called: str) -> Iterator[None]:
    """Show the progress of these runs of one study until the block ends, if standard error is a terminal.

    Meanwhile only errors are logged there, by this process and by those that it starts, and Lightning's bars are off;
    `train.log` has every line. `trainer.progress_bar=false` turns the display off. called: the name of the runs.
    """
    if not console_is_terminal() or planned[0].run.settings.trainer.progress_bar is False:
        yield
        return
    bars = Progress(
        _OneLine("name"),
        BarColumn(bar_width=20),
        _OneLine("doing", ratio=1),
        console=Console(stderr=True),
        expand=True,
        transient=True,
        refresh_per_second=4,
    )
    ended = threading.Event()
    display = _Display(bars, planned, called)

    def follow() -> None:
        while not ended.wait(_SECONDS):
            display.update()

    thread = threading.Thread(target=follow, name="live display", daemon=True)
    with bars, drawing_on_console():
        display.update()
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            display.update()


class _OneLine(ProgressColumn):
    """A field of the task as plain text, cut off where the line ends. ratio: its share of the width that is left."""

    def __init__(self, field: str, ratio: int | None = None) -> None:
        super().__init__(Column(no_wrap=True, overflow="ellipsis", ratio=ratio))
        self.field = field

    def render(self, task: Task) -> Text:
        """The field."""
        return Text(str(task.fields[self.field]))


@dataclass(frozen=True)
class Line:
    """One line of the display.

    Attributes:
        done: of the bar.
        total: of the bar; None for a bar that only moves.
        doing: the text behind it.
    """

    done: int
    total: int | None
    doing: str


class _Display:
    """The bars of a study and of its runs, from what the runs' folders hold."""

    def __init__(self, bars: Progress, planned: Sequence[PlannedRun], called: str) -> None:
        self.bars, self.called, self.total = bars, called, len(planned)
        self.open = {run.run.run_id: run for run in planned if run.run.settings.rerun or not run.is_settled}
        # the runs of another process are shown from the start, any other once it is touched
        self.untouched = {
            run_id: run.run.folder.stamp for run_id, run in self.open.items() if not run.run.folder.is_locked
        }
        self.already, self.started = self.total - len(self.open), time.monotonic()
        self.study = bars.add_task("", name=f"study {planned[0].run.study.name}", doing="", total=self.total)
        self.tasks: dict[str, TaskID] = {}

    def update(self) -> None:
        """Look at the runs, and change the bars."""
        failed = 0
        for run_id, planned in list(self.open.items()):
            folder = planned.run.folder
            if self.untouched.get(run_id) == folder.stamp:
                continue
            self.untouched.pop(run_id, None)
            progress = RunProgress(folder.read(), {})
            if progress.active:
                self._show(
                    run_id, planned.run.facts.short_name, line(progress, planned.run.settings.trainer.max_epochs)
                )
                continue
            if task := self.tasks.pop(run_id, None):
                self.bars.remove_task(task)
            failed += progress.lost
            if planned.changed(rerun=False).is_settled:
                del self.open[run_id]
        done = self.total - len(self.open)
        texts = (f"{done} of {self.total} {self.called}", f"{failed} failed" if failed else "", self._left(done))
        self.bars.update(self.study, completed=done, doing=", ".join(filter(None, texts)))

    def _show(self, run_id: str, name: str, shown: Line) -> None:
        if run_id not in self.tasks:
            self.tasks[run_id] = self.bars.add_task("", name=name, doing="", total=None)
        self.bars.update(self.tasks[run_id], completed=shown.done, total=shown.total, doing=shown.doing)

    def _left(self, done: int) -> str:
        """By the pace since the display began; empty before the first run has ended."""
        here = done - self.already
        if not here or not self.open:
            return ""
        return f"about {duration((time.monotonic() - self.started) / here * len(self.open))} left"


def line(run: RunProgress, epochs: int) -> Line:
    """The line of a run that is trained or evaluated; epochs: of its training."""
    if run.state == "evaluating":
        return Line(epochs, epochs, _last_message(run.record.folder.log, run))
    rows = read_rows(run.record.folder.metrics)
    robust = f", {rows[-1]['val_robust_acc']:.1f}% robust on held-out images" if rows else ""
    return Line(len(rows), epochs, f"{epoch_at_work(len(rows), epochs)}{robust}")


def _last_message(log: Path, run: RunProgress) -> str:
    """The last line of train.log without its time and the run's name; `evaluating` if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL))
            tail = file.read().decode(errors="replace")
    except OSError:
        return "evaluating"
    found = [match["message"] for match in map(_LOG_LINE.fullmatch, tail.splitlines()) if match]
    if not found:
        return "evaluating"
    name = run.record.facts.short_name if run.record.facts else ""
    return found[-1].removeprefix(f"{name}, ").removeprefix(f"run {run.run_id}, ")
