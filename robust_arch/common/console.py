"""What a user sees on standard error while a command works."""

import logging

_NAME = "robust_arch console"


def set_up_logging() -> None:
    """Lines of this package at INFO, of others at WARNING, once a process however often it is called."""
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    logging.getLogger("robust_arch").setLevel(logging.INFO)
    if any(handler.get_name() == _NAME for handler in root.handlers):
        return
    handler = logging.StreamHandler()
    handler.set_name(_NAME)
    handler.setFormatter(logging.Formatter("[%(asctime)s] %(message)s", datefmt="%H:%M:%S"))
    root.addHandler(handler)
