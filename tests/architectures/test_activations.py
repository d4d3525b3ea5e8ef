"""Memory of activations against what autograd itself saves."""

import pytest
import torch
from torch import nn

from robust_arch.architectures import ArchSpec, activation_bytes, build
from robust_arch.architectures.layers import ACTIVATIONS
from robust_arch.errors import InputError

SHAPES = [(3, 32, 32), (1, 8, 8), (2, 9, 7)]


def saved_bytes(net, batch, image_shape):
    """Bytes of the distinct storages that a forward pass saves for backward, without the network's own tensors."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*net.parameters(), *net.buffers())}
    saved = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    x = torch.rand(batch, *image_shape)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = net(x)
    assert logits.requires_grad
    return sum(saved.values())


def bytes_an_image(net, image_shape):
    # the difference of two batches leaves out what does not grow with them, like BatchNorm's statistics
    few, many = (saved_bytes(net.train(), batch, image_shape) for batch in (3, 8))
    assert (many - few) % 5 == 0
    return (many - few) // 5


SPECS = [
    ArchSpec("wide_resnet", (1, 1, 1), (4, 8, 8)),
    ArchSpec("wide_resnet", (2, 2, 2), (16, 32, 64)),  # the stem's width goes on: an identity shortcut at first
    ArchSpec("wide_resnet", (1, 3, 2), (12, 12, 20), stem_width=6),  # equal widths at stride 2
    ArchSpec("wide_resnet", (2, 1, 2), (8, 12, 4), dropout=0.3),
    ArchSpec("preact_resnet", (1, 2, 1, 2), (4, 8, 8, 12), stem_width=4),
    ArchSpec("resnet", (1, 1, 1, 1), (4, 8, 8, 12)),
    ArchSpec("resnet", (2, 1, 3, 2), (16, 16, 8, 12)),
    ArchSpec("resnet", (2, 2, 1, 2), (6, 12, 12, 4), stem_width=5),
]


@pytest.mark.parametrize("image_shape", SHAPES, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.family}-{spec.depths}-{spec.widths}")
def test_the_closed_form_is_what_autograd_saves(spec, activation, image_shape):
    spec = ArchSpec.from_dict({**spec.to_dict(), "activation": activation})
    net = build(spec, 5, image_shape, seed=0)
    assert activation_bytes(spec, image_shape) == bytes_an_image(net, image_shape)


OPERATIONS = {
    "normal": ["sep_conv_5x5:1", "avg_pool_3x3:1", "dil_conv_5x5:2", "sep_conv_7x7:1"],  # the first input is not read
    "reduce": ["dil_conv_3x3:0", "avg_pool_3x3:1", "skip_connect:0", "max_pool_3x3:2"],
}
MIXED = {
    "se_ratio": 0.5,
    "block": ["basic", "bottleneck", "basic"],
    "activation": ["relu", "silu", "psilu"],
    "dropout": [0.0, 0.2, 0.1],
}
WITH_OPTIONS = [
    ("wide_resnet", (1, 2, 1), (6, 6, 8), MIXED),
    ("wide_resnet", (1, 2, 1), (6, 6, 8), {"stem": "imagenet"}),
    ("wide_resnet", (1, 2, 1), (6, 6, 8), {"padding": "same"}),
    ("preact_resnet", (2, 2, 1, 1), (6, 6, 8, 9), {"padding": "same", "block": "bottleneck"}),
    ("resnet", (1, 2, 1, 2), (6, 6, 8, 5), {"block": "bottleneck", "base_width": 128}),
    ("resnet", (1, 2, 1, 1), (6, 6, 8, 5), {"stem": "imagenet"}),
    ("robust_resnet", (2, 1, 3), (16, 16, 8), {}),
    ("robust_resnet", (2, 1, 3), (16, 4, 32), {"preactivated": True, "scales": 2, "stem": "imagenet"}),
    ("vgg", (1, 2, 1, 3, 1), (4, 6, 6, 8, 5), {}),
    ("densenet", (2, 1, 3, 2), (4, 4, 6, 5), {}),
    ("densenet", (1, 2, 1, 1), (4, 4, 4, 4), {"stem": "imagenet", "transition_widths": [3, 4, 5], "expansion": 2}),
    ("darts", (2, 3, 1), (4, 6, 5), {}),
    ("darts", (1, 2, 4), (3, 1, 2), {"auxiliary": True}),
    ("darts", (1, 2, 1), (3, 4, 2), {"stem": "imagenet"}),
    ("darts", (2, 1, 1), (4, 6, 5), {**OPERATIONS, "auxiliary": True}),
    *(("convnext", (1, 2, 1, 1), (8, 16, 16, 24), {"stem": stem}) for stem in ("cifar", "conv", "conv3", "patch")),
]


@pytest.mark.parametrize("activation", ["relu", "gelu", "psilu"])
@pytest.mark.parametrize(("family", "depths", "widths", "options"), WITH_OPTIONS, ids=lambda value: f"{value}"[:20])
def test_the_closed_form_counts_options_and_the_other_families(family, depths, widths, options, activation):
    if family == "convnext":
        pytest.importorskip("timm")
    spec = ArchSpec(family, depths, widths, activation=activation, options=options)
    for image_shape in [(1, 33, 40), *([] if "auxiliary" in options or "stem" in options else [(2, 9, 13)])]:
        net = build(spec, 5, image_shape, seed=0)
        assert activation_bytes(spec, image_shape) == bytes_an_image(net, image_shape)


def test_the_hooks_see_a_known_network():
    # a linear layer behind a ReLU keeps the ReLU's output, 7 numbers, and the first layer its input, 4
    net = nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 2))
    assert bytes_an_image(net, (4,)) == 4 * (4 + 7)


def test_by_hand():
    # WRN of one block per stage, all widths 16, 4x4 images: the image 48; the stages' blocks keep 2 * 16 numbers at
    # each position before and 2 * 16 behind them: 16 + 16, 16 + 4, 4 + 1 positions; the end 2 * 16 at 1, and 16
    spec = ArchSpec("wide_resnet", (1, 1, 1), (16, 16, 16))
    assert activation_bytes(spec, (3, 4, 4)) == 4 * (48 + 32 * (32 + 20 + 5) + 32 + 16)


def test_images_without_pixels_are_refused():
    with pytest.raises(InputError, match="image_shape"):
        activation_bytes(SPECS[0], (3, 0, 4))
