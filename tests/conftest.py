"""What tests of more than one folder share."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from torch import nn

# the same examples on every machine, and no verdict that depends on how busy the machine is
settings.register_profile("reproducible", derandomize=True, deadline=None)
settings.load_profile("reproducible")

# the networks here are too small to be worth dividing; waiting threads would cost more than the work
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def published():
    """Figures of the papers, each with its source."""
    return json.loads((Path(__file__).parents[1] / "experiments" / "published.json").read_text())


@pytest.fixture(scope="session")
def linear():
    """From a weight matrix (K, C * H * W) and a bias (K,) to the network that computes exactly that."""

    def make(weight, bias=None, dtype=torch.float32):
        weight = torch.as_tensor(weight, dtype=dtype)
        layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=dtype)
        with torch.no_grad():
            layer.weight.copy_(weight)
            layer.bias.copy_(torch.zeros(len(weight)) if bias is None else torch.as_tensor(bias))
        return nn.Sequential(nn.Flatten(), layer)

    return make
