"""What every command sets up in its process: log lines on standard error, and an orderly end on SIGTERM."""

import logging
import signal
import sys
import threading
from types import FrameType

_HANDLER = "robust_arch console"


def set_up_logging() -> None:
    """Show this package's log lines from INFO on, those of other packages from WARNING on; calling it again is safe."""
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    logging.getLogger("robust_arch").setLevel(logging.INFO)
    if all(handler.get_name() != _HANDLER for handler in root.handlers):
        handler = logging.StreamHandler()
        handler.set_name(_HANDLER)
        handler.setFormatter(logging.Formatter("[%(asctime)s] %(message)s", datefmt="%H:%M:%S"))
        root.addHandler(handler)


def exit_now(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001
    """Unwind as Ctrl-C does, so that the work in progress is recorded as interrupted."""
    sys.exit(128 + signum)


def exit_on_sigterm() -> None:
    """Unwind on SIGTERM, unless something else in this process, such as a scheduler's client, handles it already."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, exit_now)
