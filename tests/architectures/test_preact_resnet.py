"""The pre-activation ResNet against a second one, written here from the published description."""

import pytest
import torch
from networks import random_images, randomised
from torch.nn import functional as F

from robust_arch.architectures import PRESETS, ArchSpec, build, cost
from robust_arch.errors import InputError
from robust_arch.interop import load_published
from robust_arch.interop.published import published_state

SPECS = [
    ArchSpec("preact_resnet", (1, 2, 1, 1), (8, 8, 8, 8), stem_width=8),  # projections by stride alone
    ArchSpec("preact_resnet", (2, 1, 1, 2), (6, 9, 12, 5), stem_width=4),
    ArchSpec("preact_resnet", (1, 2, 1, 1), (2, 3, 4, 4), stem_width=8, options={"block": "bottleneck"}),
]


def batch_norm(state, name, x):
    names = ("running_mean", "running_var", "weight", "bias")
    return F.batch_norm(x, *(state[f"{name}.{key}"] for key in names))


def block(state, name, x, stride):
    entering = F.relu(batch_norm(state, f"{name}.bn1", x))
    is_bottleneck = f"{name}.conv3.weight" in state
    h = F.conv2d(
        entering, state[f"{name}.conv1.weight"], None, 1 if is_bottleneck else stride, 0 if is_bottleneck else 1
    )
    h = F.relu(batch_norm(state, f"{name}.bn2", h))
    h = F.conv2d(h, state[f"{name}.conv2.weight"], None, stride if is_bottleneck else 1, 1)
    if is_bottleneck:
        h = F.conv2d(F.relu(batch_norm(state, f"{name}.bn3", h)), state[f"{name}.conv3.weight"])
    if stride == 2 or h.shape[1] != x.shape[1]:
        return h + F.conv2d(entering, state[f"{name}.shortcut.weight"], None, stride)
    return h + x


def reference_logits(state, spec, x):
    h = F.conv2d(x, state["network.stem.weight"], None, 1, 1)
    for stage, depth in enumerate(spec.depths):
        for i in range(depth):
            h = block(state, f"network.stages.{stage}.{i}", h, 2 if stage > 0 and i == 0 else 1)
    h = F.relu(batch_norm(state, "network.bn", h)).mean(dim=(2, 3))
    return h @ state["network.fc.weight"].T + state["network.fc.bias"]


@pytest.mark.parametrize("image_shape", [(3, 8, 8), (1, 7, 10)], ids=str)
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.widths}")
def test_logits_equal_a_second_implementation(spec, image_shape):
    net = randomised(build(spec, 5, image_shape, seed=0))
    x = random_images(3, *image_shape)
    with torch.no_grad():
        torch.testing.assert_close(net(x), reference_logits(net.state_dict(), spec, x), rtol=1e-10, atol=1e-10)


def test_the_preset_is_the_network_that_the_field_trains():
    # ResNet-18's 11,173,962 parameters, without BatchNorm behind three projections (2 x (128 + 256 + 512)); BatchNorm
    # stands before each convolution instead of behind it: at the stem 64, in the first blocks of stages 2 to 4 the
    # width before instead of their own, at the end 512
    blocks = 2 * ((64 - 128) + (128 - 256) + (256 - 512))
    result = cost(PRESETS["preact_resnet18"])
    assert result.params == 11_173_962 - 2 * (128 + 256 + 512) - 2 * 64 + blocks + 2 * 512 == 11_172_170
    assert result.macs == cost(PRESETS["resnet18"]).macs


def test_weights_of_published_code_load():
    spec, net = SPECS[1], randomised(build(SPECS[1], 5, (3, 8, 8), seed=0)).float()
    state = published_state(net, spec)
    # the names of the code of Rice et al. 2020
    assert {"conv1.weight", "layer1.0.bn1.weight", "layer2.0.shortcut.0.weight", "bn.bias", "linear.bias"} <= set(state)
    x = random_images(2, 3, 8, 8).float()
    with torch.no_grad():
        assert torch.equal(load_published(state, spec)(x), net(x))


def test_three_stages_are_refused():
    with pytest.raises(InputError, match=r"arch\.depths = \(1, 1, 1\): expected 4 stages, as family preact_resnet has"):
        ArchSpec("preact_resnet", (1, 1, 1), (8, 8, 8))
