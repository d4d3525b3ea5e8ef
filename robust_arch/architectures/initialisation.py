"""Initialisation of the convolutions of every family."""

import math

from torch import nn


def initialise_convolutions(network: nn.Module) -> None:
    """Draw each convolution from N(0, sqrt(2 / (kh kw c_out))), from torch's global random state (He et al. 2015)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            kh, kw = module.kernel_size
            nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / (kh * kw * module.out_channels)))
