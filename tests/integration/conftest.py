"""Whole runs, runs that are interrupted, and the scripts of benchmarks/ as modules."""

import sys
from pathlib import Path

import pytest

from robust_arch.configuration.settings import read_settings
from robust_arch.execution.execute import execute
from robust_arch.execution.run import Run
from robust_arch.training.module import AdversarialTraining

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmarks(monkeypatch):
    """The scripts of benchmarks/ can be imported, as they import one another."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield BENCHMARKS
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(BENCHMARKS)):
            del sys.modules[name]


@pytest.fixture
def run(composed):
    """A function from overrides to a loaded run."""
    return lambda *overrides: Run.load(read_settings(composed(*overrides)))


@pytest.fixture
def interrupt(monkeypatch):
    """A function that executes a run and interrupts it at the first step of an epoch."""

    def start(run, epoch):
        step = AdversarialTraining.training_step

        def interrupted(module, *args):
            if module.current_epoch == epoch:
                raise KeyboardInterrupt
            return step(module, *args)

        with monkeypatch.context() as patch:
            patch.setattr(AdversarialTraining, "training_step", interrupted)
            with pytest.raises((KeyboardInterrupt, SystemExit)):
                execute(run)

    return start
