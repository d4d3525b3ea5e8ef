"""What a process does that is asked to stop."""

import signal
import sys
import threading
from types import FrameType


def exit_now(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001
    """Unwind as Ctrl-C does, so that what was going on is recorded as interrupted."""
    sys.exit(128 + signum)


def exit_on_sigterm() -> None:
    """Unwind on SIGTERM, unless a scheduler's client in this process answers it in a way of its own."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, exit_now)
