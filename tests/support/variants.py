"""What a checkpoint can be of: both families, with and without normalisation, other images than RGB ones."""

import torch

from robust_arch.architectures import ArchSpec, build

WIDE = ArchSpec("wide_resnet", (1, 2, 1), (8, 6, 6), stem_width=4)
RES = ArchSpec("resnet", (1, 2, 1, 1), (6, 6, 8, 5), stem_width=6)
NORMALISED = {"mean": (0.25, 0.5), "std": (0.5, 0.125)}
CONFIG = {"seed": 3, "data": {"_target_": "robust_arch.data.digits.Digits", "name": "digits", "eps": {"linf": 0.2}}}

# name: spec, classes, image shape, normalisation, training configuration
VARIANTS = {
    "wide_resnet": (WIDE, 10, (3, 16, 16), {}, CONFIG),
    "resnet": (RES, 10, (3, 16, 16), {}, None),
    "two channels, normalised": (WIDE, 7, (2, 9, 7), NORMALISED, CONFIG),
    "grey, silu": (ArchSpec("resnet", (1,) * 4, (4, 4, 6, 6), stem_width=4, activation="silu"), 3, (1, 8, 8), {}, None),
}


def trained(spec, num_classes, image_shape, normalisation):
    """A network with statistics of its own."""
    net = build(spec, num_classes, image_shape, **normalisation, seed=3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        net.train()(torch.rand(16, *image_shape, generator=generator))
    return net.eval()
