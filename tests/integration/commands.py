"""Settings that make a whole run take a second, and the command as a user types it."""

import subprocess
import sys

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


def command(*arguments, cwd):
    """Run `python -m <arguments>` in a folder; returns the finished process with its output as text."""
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=cwd, capture_output=True, text=True, check=False, timeout=300
    )
