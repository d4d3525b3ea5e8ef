import pytest
import torch
from networks import copied, random_images, randomised
from torch import nn
from torchvision import models

from robust_arch.architectures import PRESETS, ArchSpec, build, cost
from robust_arch.errors import InputError

# parameters of the VGGs of kuangliu/pytorch-cifar, with biases in the convolutions
PUBLISHED = {"vgg11": 9_231_114, "vgg13": 9_416_010, "vgg16": 14_728_266, "vgg19": 20_040_522}


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_have_the_published_parameters(name):
    assert cost(PRESETS[name]).params == PUBLISHED[name]


@pytest.mark.parametrize("name", ["vgg11", "vgg16"])
def test_logits_equal_those_of_torchvision_with_one_linear_layer(name):
    features = models.get_model(f"{name}_bn", weights=None).features
    theirs = randomised(nn.Sequential(features, nn.Flatten(), nn.Linear(512, 10))).float()
    ours = copied(theirs, build(PRESETS[name]).network.eval())
    x = random_images(2, 3, 32, 32).float()
    with torch.no_grad():
        expected = theirs(x)
        assert (ours(x) - expected).norm() <= 1e-4 * expected.norm()


def test_hand_computed_network():
    # 1x5x5 images, 2 classes: sizes 5, 3, 2, 1, 1. Stage 1: convolution 9 + 1 and BN 2 (one layer of width 1), then
    # twice the same of 1 channel each; stage 4 has two layers; stage 5 widens to 2: 18 + 2 and BN 4; linear 4 + 2.
    result = cost(ArchSpec("vgg", (1, 1, 1, 2, 1), (1, 1, 1, 1, 2)), 2, (1, 5, 5))
    assert result.stage_params == (12, 12, 12, 24, 24)
    assert result.stage_macs == (9 * 25, 9 * 9, 9 * 4, 18, 18)
    assert (result.params, result.macs) == (84 + 6, 225 + 81 + 36 + 36 + 4)


def test_pooling_reads_the_border():
    net = randomised(build(ArchSpec("vgg", (1,) * 5, (3,) * 5, activation="softplus"), 3, (1, 9, 9), seed=0))
    x = random_images(1, 1, 9, 9)
    # the last row is alone in its windows of 9, 5, 3 and 2 rows; rounding down would leave it out
    changed = x.detach().clone()
    changed[0, 0, 8] += 10
    assert not torch.equal(net(changed), net(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"depths": (1,) * 4, "widths": (8,) * 4},
            r"arch\.depths = \(1, 1, 1, 1\): expected 5 stages, as family vgg has",
        ),
        ({"dropout": 0.1}, r"arch\.dropout = 0\.1: expected 0, as"),
        ({"stem_width": 64}, r"arch\.stem_width = 64: expected 16, the default, as family vgg has no stem"),
        ({"options": {"stem": "imagenet"}}, r"arch\.options = \{'stem': 'imagenet'\}: expected nothing"),
    ],
)
def test_what_the_family_does_not_have_is_named(change, message):
    with pytest.raises(InputError, match=message):
        ArchSpec(**{"family": "vgg", "depths": (1,) * 5, "widths": (8,) * 5, **change})
