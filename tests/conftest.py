"""What tests of more than one folder share."""

import functools
import gc
import json
from pathlib import Path

import pytest
import torch
from commands import SMALL, call
from composition import configuration
from hypothesis import settings
from torch import nn

from robust_arch.data import ImageSet, digits
from robust_arch.data.torchvision_sets import TorchvisionSet

# the same examples on every machine, and no verdict that depends on how busy the machine is
settings.register_profile("reproducible", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("reproducible")

# the networks here are too small to be worth dividing; waiting threads would cost more than the work
torch.set_num_threads(1)


def pytest_collection_finish():
    """What is imported stays: the collections that end each run need not look at it."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure():
    """Libraries look at the end for what they have left."""
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def quick_digits():
    """Reads the digits from their file once, not for each of several hundred runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits, "load_digits", functools.cache(digits.load_digits))
        yield


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


@pytest.fixture
def composed(tmp_path):
    """A function from a config's name and overrides to what Hydra hands to a job; results go to tmp_path."""

    def make(*overrides, config="train", small=True):
        return configuration(tmp_path, *(SMALL if small else ()), *overrides, config=config)

    return make


@pytest.fixture
def small_images(monkeypatch):
    """CIFAR-10 and CIFAR-100 replaced by a few random images of their shape and classes."""

    def read(self):
        classes = {"CIFAR10": 10, "CIFAR100": 100}[self.source]
        generator = torch.Generator().manual_seed(0)

        def part(count):
            images = torch.randint(0, 256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
            return ImageSet(images, torch.arange(count) % classes, num_classes=classes)

        return part(300), part(100)

    monkeypatch.setattr(TorchvisionSet, "read", read)


@pytest.fixture
def train_command(tmp_path):
    """A function that runs the training command with small settings in tmp_path."""
    return lambda *overrides: call("robust_arch.train", *SMALL, *overrides, cwd=tmp_path)
