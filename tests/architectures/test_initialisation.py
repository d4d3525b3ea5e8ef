"""Initialisations by the variances that their papers state."""

import math

import pytest
import torch
from torch import nn

from robust_arch.architectures import ArchSpec, build
from robust_arch.errors import InputError

BASE = {"family": "robust_resnet", "depths": (1, 1, 1), "widths": (32, 48, 40)}  # has grouped convolutions


def variance(layer, name, is_last):
    """Of the weights, with n_in inputs of an output and n_out outputs of an input."""
    if isinstance(layer, nn.Linear):
        n_in, n_out = layer.in_features, layer.out_features
    else:
        taps = math.prod(layer.kernel_size) / layer.groups
        n_in, n_out = taps * layer.in_channels, taps * layer.out_channels
    return {"he": 2 / n_in, "lecun": 1 / n_in, "ntk": 1.0 if is_last else 2 / n_out}[name]


@pytest.mark.parametrize("name", ["he", "lecun", "ntk"])
def test_weights_have_the_stated_variance_and_biases_are_zero(name):
    net = build(ArchSpec(**BASE, initialisation=name), 10, seed=0).network
    layers = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert len(layers) == 1 + 3 * (1 + 7 + 1 + 2 + 1) + 1
    for layer in layers:
        weight, expected = layer.weight.detach(), math.sqrt(variance(layer, name, layer is net.fc))
        # the relative standard error of a normal sample's deviation is 1 / sqrt(2 n); 5 of them
        assert weight.std().item() == pytest.approx(expected, rel=5 / math.sqrt(2 * weight.numel()))
        assert layer.bias is None or not layer.bias.any()


def test_the_published_one_is_the_default_and_no_part_of_a_record():
    spec = ArchSpec(**BASE, initialisation="published")
    assert spec == ArchSpec(**BASE)
    assert "initialisation" not in spec.to_dict()
    same = build(spec, seed=1).state_dict(), build(ArchSpec(**BASE), seed=1).state_dict()
    assert all(torch.equal(a, b) for a, b in zip(*(each.values() for each in same), strict=True))


def test_another_one_is_another_architecture():
    spec = ArchSpec(**BASE, initialisation="he")
    assert spec.to_dict()["initialisation"] == "he"
    assert spec != ArchSpec(**BASE)
    with pytest.raises(InputError, match=r"arch\.initialisation = 'xavier': expected one of published, he, lecun, ntk"):
        ArchSpec(**BASE, initialisation="xavier")
