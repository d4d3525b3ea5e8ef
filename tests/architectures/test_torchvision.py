"""Networks that torchvision has too: the same logits with its weights."""

import pytest
import torch
from networks import random_images, randomised
from torchvision import models

from robust_arch.architectures import ArchSpec, cost
from robust_arch.interop import load_published

RESNETS = {
    "resnet18": ((2, 2, 2, 2), {"stem": "imagenet"}),
    "resnet34": ((3, 4, 6, 3), {"stem": "imagenet"}),
    "resnet50": ((3, 4, 6, 3), {"stem": "imagenet", "block": "bottleneck"}),
    "wide_resnet50_2": ((3, 4, 6, 3), {"stem": "imagenet", "block": "bottleneck", "base_width": 128}),
}


@pytest.mark.parametrize("name", RESNETS)
def test_resnets(name):
    depths, options = RESNETS[name]
    spec = ArchSpec("resnet", depths, (64, 128, 256, 512), stem_width=64, options=options)
    theirs = randomised(models.get_model(name, weights=None, num_classes=7)).float()
    ours = load_published(theirs.state_dict(), spec)
    x = random_images(1, 3, 71, 64).float()
    with torch.no_grad():
        expected = theirs(x)
        assert (ours(x) - expected).norm() <= 1e-4 * expected.norm()
    assert cost(spec, 7, (3, 224, 224)).params == sum(parameter.numel() for parameter in theirs.parameters())
