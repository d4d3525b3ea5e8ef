"""Initialisation of the weights of every family."""

import math

from torch import nn

INITIALISATIONS = ("published", "he", "lecun", "ntk")


def initialise_convolutions(network: nn.Module) -> None:
    """Draw each convolution from N(0, sqrt(2 / (kh kw c_out))), from torch's global random state (He et al. 2015)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            kh, kw = module.kernel_size
            nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / (kh * kw * module.out_channels)))


def initialise(network: nn.Module, name: str) -> None:
    """Draw the weights of all convolutions and linear layers again, from torch's global random state; biases become 0.

    With n_in and n_out the inputs of one output and the outputs of one input, the variance of the weights is
    he: 2 / n_in (He et al. 2015); lecun: 1 / n_in (LeCun et al. 1998); ntk: 2 / n_out, and 1 in the last linear layer
    (Allen-Zhu et al. 2019, in the form that Zhu et al. 2022 compare for robustness). published: as the family's
    published code starts; nothing is drawn.
    """
    if name == "published":
        return
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    for layer in layers:
        nn.init.normal_(layer.weight, 0.0, math.sqrt(_variance(layer, name, is_last=layer is layers[-1])))
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def _variance(layer: nn.Conv2d | nn.Linear, name: str, *, is_last: bool) -> float:
    fan_in = layer.weight[0].numel()
    if name == "ntk":
        groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
        fan_out = layer.weight.shape[0] * layer.weight[0, 0].numel() // groups
        return 1.0 if is_last else 2 / fan_out
    return (2 if name == "he" else 1) / fan_in
