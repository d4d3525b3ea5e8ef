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
