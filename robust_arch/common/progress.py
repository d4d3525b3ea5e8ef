"""Signs of life of long computations: log lines that name the run, every ten seconds at first."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

_SILENCE, _LATER = 10.0, 60.0  # seconds without a line, at most: at first, and once the phase has taken 20 minutes
_names: ContextVar[str] = ContextVar("names", default="")


@dataclass
class Phase:
    """What is being computed: `doing` as a whole, and `detail` at this moment."""

    doing: str
    detail: str = ""

    def begin(self, doing: str) -> None:
        """Go on with something else."""
        self.doing, self.detail = doing, ""

    @property
    def text(self) -> str:
        """Both, like `autoattack: fab-t on 57 images`."""
        return f"{self.doing}: {self.detail}" if self.detail else self.doing


_phase: ContextVar[Phase | None] = ContextVar("phase", default=None)


@contextmanager
def prefixed(name: str) -> Iterator[None]:
    """Begin every line that is told inside with `name`, such as that of the run, after the names of outer blocks."""
    token = _names.set(", ".join(filter(None, (_names.get(), name))))
    try:
        yield
    finally:
        _names.reset(token)


def line_prefix() -> str:
    """What a line about the current subject begins with, like `d2-2-2-w8-16-32, seed 0: `; empty without a subject."""
    name = _names.get()
    return f"{name}: " if name else ""


def tell(log: logging.Logger, message: str, *args: object) -> None:
    """Log a line about the current subject."""
    log.info("%s%s", line_prefix(), message % args)


def step(log: logging.Logger, detail: str, more: str = "") -> None:
    """Log the next step of the current phase, followed by `more`, which later lines do not repeat."""
    mention(detail)
    phase = _phase.get()
    tell(log, "%s%s", phase.text if phase else detail, more)


def mention(detail: str) -> None:
    """The next step of the current phase, which only a line after ten seconds of silence mentions."""
    if phase := _phase.get():
        phase.detail = detail


@contextmanager
def watched(log: logging.Logger, doing: str) -> Iterator[Phase]:
    """Log, while the block runs, what it is doing and for how long; nothing if it takes less than ten seconds."""
    phase, ended, name = Phase(doing), threading.Event(), _names.get()
    started = time.monotonic()

    def beat() -> None:
        passed = 0.0
        while not ended.wait(min(_LATER, max(_SILENCE, passed / 20))):
            passed = time.monotonic() - started
            with prefixed(name):  # a thread begins without one
                tell(log, "%s, for %s", phase.text, duration(passed))

    thread = threading.Thread(target=beat, name="progress", daemon=True)
    thread.start()
    token = _phase.set(phase)
    try:
        yield phase
    finally:
        _phase.reset(token)
        ended.set()
        thread.join()


def duration(seconds: float) -> str:
    """Seconds as `2 h 10 min`."""
    minutes = round(seconds / 60)
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    hours = round(seconds / 3600)
    return f"{minutes // 60} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
