"""Settings that make a whole run take a second, and the commands as a user types them."""

import contextlib
import importlib
import io
import logging
import os
import signal
import subprocess
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

SMALL = (
    "arch.depths=[1,1,1]",
    "arch.widths=[4,8,8]",
    "logger=csv",
    "recipe.batch_size=32",
    "trainer.accelerator=cpu",
    "trainer.precision=32",
    "trainer.threads=1",
    "trainer.max_epochs=2",
    "trainer.limit_train_batches=3",
    "selection.images=20",
    "evaluate.attacks=[fgsm,pgd20]",
    "evaluate.n=40",
)


@dataclass(frozen=True)
class Finished:
    """What a command printed and its exit status."""

    returncode: int
    stdout: str
    stderr: str


def command(*arguments, cwd):
    """Run `python -m <arguments>` in a folder, in a process of its own, which imports torch for seconds."""
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=cwd, capture_output=True, text=True, check=False, timeout=300
    )


def call(module, *arguments, cwd):
    """The same in this process: the module's main(), its output as text; what it sets up is taken back."""
    out, err = io.StringIO(), io.StringIO()
    with as_command(module, *arguments, cwd=cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = _exit_status(importlib.import_module(module).main)
    return Finished(status, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def as_command(module, *arguments, cwd):
    """Inside, this process is the command with these arguments, in this folder."""
    root, handler, threads = logging.getLogger(), signal.getsignal(signal.SIGTERM), torch.get_num_threads()
    handlers, level, folder, argv, environment = root.handlers[:], root.level, Path.cwd(), sys.argv, dict(os.environ)
    configuration = HydraConfig.instance().cfg
    GlobalHydra.instance().clear()
    root.handlers[:] = []  # pytest's own handlers keep the streams of before
    sys.argv = [importlib.import_module(module).__file__, *map(str, arguments)]
    os.chdir(cwd)
    try:
        yield
    finally:
        os.chdir(folder)
        sys.argv = argv
        os.environ.clear()
        os.environ.update(environment)
        GlobalHydra.instance().clear()
        HydraConfig.instance().cfg = configuration
        signal.signal(signal.SIGTERM, handler)
        root.handlers[:] = handlers
        root.setLevel(level)
        torch.set_num_threads(threads)


def _exit_status(main):
    """What the interpreter makes of how main ends."""
    try:
        main()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except Exception:
        traceback.print_exc()
        return 1
    return 0
