"""The untrained networks of the theory's figure are those that the runs started from."""

import importlib
from pathlib import Path

import pytest
import torch

from robust_arch.configuration.settings import read_settings
from robust_arch.execution.execute import _module
from robust_arch.execution.run import Run
from robust_arch.interop.checkpoint import LoadedCheckpoint

THEORY = Path(__file__).parents[2] / "experiments" / "theory"


@pytest.mark.parametrize("normalize", ["identity", "dataset"])
def test_the_initial_network_is_where_training_starts(composed, monkeypatch, normalize):
    monkeypatch.syspath_prepend(str(THEORY))
    measure = importlib.import_module("measure")
    run = Run.load(read_settings(composed("seed=3", f"recipe.normalize={normalize}")))
    start = _module(run)
    # of another seed: nothing of the weights but the normalisation is taken from a checkpoint
    other = _module(Run.load(read_settings(composed("seed=4", f"recipe.normalize={normalize}"))))
    loaded = LoadedCheckpoint(other.net, run.settings.spec, start.card)
    found = measure.initial_network(run.settings.spec, loaded, seed=3)
    assert not found.training
    expected = start.net.state_dict()
    assert found.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.state_dict().items())
