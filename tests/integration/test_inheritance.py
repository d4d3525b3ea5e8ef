"""Runs one after the other in one process: what the first leaves behind for the second."""

import gc

import pytest
import torch
import wandb

from robust_arch.configuration.settings import read_settings
from robust_arch.execution.execute import execute
from robust_arch.execution.run import Run
from robust_arch.train import forget_run


def held_bytes():
    """Bytes in tensors that are alive in this process, each storage once."""
    gc.collect()
    tensors = [item for item in gc.get_objects() if issubclass(type(item), torch.Tensor)]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


@pytest.fixture
def do(composed):
    """A function that does a run and forgets it."""

    def done(*overrides):
        execute(Run.load(read_settings(composed(*overrides))))
        forget_run()

    return done


def test_no_tensor_of_a_run_outlives_it(do):
    do("arch.widths=[4,4,4]")  # imports and caches of the first run
    before = held_bytes()
    do("arch.widths=[32,64,64]", "objective=trades")
    assert held_bytes() <= before


def test_nor_does_one_of_a_run_that_failed(do, monkeypatch):
    do("arch.widths=[4,4,4]")
    before = held_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("robust_arch.execution.execute._evaluate", lambda run, folder: 1 / 0)
        do("arch.widths=[32,64,64]", "seed=1")
    assert held_bytes() <= before


def test_no_wandb_run_stays_open(do):
    do("logger=wandb", "trainer.max_epochs=1")
    assert wandb.run is None


def test_tensors_are_counted():
    before = held_bytes()
    kept = torch.zeros(1000, 1000)
    assert held_bytes() == before + kept.untyped_storage().nbytes() == before + 4_000_000
