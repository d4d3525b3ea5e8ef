import pytest
import torch
from networks import copied, random_images, randomised
from torchvision import models

from robust_arch.architectures import PRESETS, ArchSpec, build, cost
from robust_arch.errors import InputError

BASE = {"family": "densenet", "depths": (1, 1, 1, 1), "widths": (2, 2, 2, 2), "stem_width": 4}


def test_the_preset_has_the_published_parameters():
    assert cost(PRESETS["densenet121"]).params == 6_956_298  # of kuangliu/pytorch-cifar


@pytest.mark.parametrize("name", ["densenet121", "densenet161", "densenet169", "densenet201"])
def test_presets_with_the_stem_of_imagenet_have_the_parameters_of_torchvision(name):
    spec = ArchSpec.from_dict({**PRESETS[name].to_dict(), "options": {"stem": "imagenet"}})
    with torch.device("meta"):
        theirs = models.get_model(name, weights=None)
    assert cost(spec, 1000, (3, 224, 224)).params == sum(parameter.numel() for parameter in theirs.parameters())


def test_logits_equal_those_of_torchvision():
    spec = ArchSpec("densenet", (2, 1, 3, 2), (6,) * 4, stem_width=10, options={"stem": "imagenet"})
    theirs = models.DenseNet(growth_rate=6, block_config=(2, 1, 3, 2), num_init_features=10, num_classes=5)
    theirs = randomised(theirs)
    ours = copied(theirs, build(spec, 5, (3, 64, 64)).network.double().eval())
    x = random_images(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-10, atol=1e-10)


def test_hand_computed_network():
    # 1x6x6 images, 2 classes, stem 4, growth 2, expansion 1, transitions to 3, 2 and 1. A layer that reads c channels:
    # BN 2c + 4, convolutions 2c + 36. Stage 1 reads 4 at 6x6: 12 + 8 + 36. Transition of 6 to 3 at 6x6: 12 + 18,
    # stage 2 reads 3 at 3x3: 10 + 6 + 36; 5 to 2 at 3x3: 10 + 10, reads 2 at 2x2: 8 + 4 + 36; 4 to 1 at 2x2: 8 + 4,
    # reads 1 at 1x1: 6 + 2 + 36. Stem 36; head BN 6, linear 6 + 2.
    options = {"transition_widths": [3, 2, 1], "expansion": 1}
    result = cost(ArchSpec(**BASE, options=options), 2, (1, 6, 6))
    assert result.stage_params == (56, 30 + 52, 20 + 48, 12 + 44)
    assert result.stage_macs == (44 * 36, 18 * 36 + 42 * 9, 10 * 9 + 40 * 4, 4 * 4 + 38)
    assert result.params == sum(result.stage_params) + 36 + 14
    assert result.macs == sum(result.stage_macs) + 36 * 36 + 6


def test_each_layer_reads_all_before_it():
    net = build(ArchSpec(**{**BASE, "depths": (3, 1, 1, 1), "widths": (2, 5, 1, 1)}), 3, (1, 8, 8), seed=0).network
    assert [layer.bn1.num_features for layer in net.stages[0]] == [4, 6, 8]
    transition, layer = net.stages[1]
    assert (transition.conv.in_channels, transition.conv.out_channels, layer.bn1.num_features) == (10, 5, 5)
    x = random_images(2, 4, 8, 8).float()
    assert torch.equal(net.stages[0](x)[:, :4], x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transition_widths": [3, 2]}, r"arch\.options\.transition_widths = \(3, 2\): expected a list of 3 integers"),
        ({"transition_widths": [3, 2, 0]}, r"arch\.options\.transition_widths = 0: expected an integer of at least 1"),
        ({"transition_widths": 8}, r"arch\.options\.transition_widths = 8: expected a list"),
        ({"expansion": 0}, r"arch\.options\.expansion = 0"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        ArchSpec(**BASE, options=options)


def test_the_narrowest_network_still_has_a_channel_behind_each_transition():
    spec = ArchSpec("densenet", (1, 1, 1, 1), (1, 1, 1, 1), stem_width=1)
    net = build(spec, 2, (1, 8, 8), seed=0)
    assert [stage[0].conv.out_channels for stage in list(net.network.stages)[1:]] == [1, 1, 1]
    assert net.eval()(torch.zeros(1, 1, 8, 8)).shape == (1, 2)
