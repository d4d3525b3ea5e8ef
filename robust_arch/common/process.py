"""What every command sets up in its process: log lines on standard error, and an orderly end on SIGTERM."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TextIO

_HANDLER = "robust_arch console"
_DRAWING = "ROBUST_ARCH_LIVE_DISPLAY"  # in the environment, so that processes started meanwhile know


def set_up_logging() -> None:
    """Show this package's log lines from INFO on, those of other packages from WARNING on; calling it again is safe.

    Only errors are shown while a live display draws on the same terminal.
    """
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    logging.getLogger("robust_arch").setLevel(logging.INFO)
    if not _console_handlers():
        handler = logging.StreamHandler()
        handler.set_name(_HANDLER)
        handler.setFormatter(logging.Formatter("[%(asctime)s] %(message)s", datefmt="%H:%M:%S"))
        root.addHandler(handler)
    for handler in _console_handlers():
        handler.setLevel(logging.ERROR if is_drawn_on() else logging.NOTSET)


def console_is_terminal() -> bool:
    """Whether standard error is a terminal that nothing else draws on."""
    return sys.stderr.isatty() and not is_drawn_on()


def is_drawn_on() -> bool:
    """Whether a live display, of this process or of the one that started it, draws on standard error."""
    return _DRAWING in os.environ and sys.stderr.isatty()


@contextmanager
def drawing_on_console() -> Iterator[None]:
    """Show only errors on standard error, in this process and in those that it starts inside the block."""
    streams = [(handler, handler.stream) for handler in _console_handlers()]
    os.environ[_DRAWING] = "1"
    set_up_logging()
    for handler, _ in streams:
        handler.setStream(sys.stderr)  # the display's, which prints above its bars
    try:
        yield
    finally:
        del os.environ[_DRAWING]
        for handler, stream in streams:
            handler.setStream(stream)
        set_up_logging()


def _console_handlers() -> list[logging.StreamHandler[TextIO]]:
    own = (handler for handler in logging.getLogger().handlers if handler.get_name() == _HANDLER)
    return [handler for handler in own if isinstance(handler, logging.StreamHandler)]


def exit_now(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001
    """Unwind as Ctrl-C does, so that the work in progress is recorded as interrupted."""
    sys.exit(128 + signum)


def exit_on_sigterm() -> None:
    """Unwind on SIGTERM, unless something else in this process, such as a scheduler's client, handles it already."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, exit_now)
