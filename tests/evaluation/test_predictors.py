"""Numbers of untrained networks against closed forms of a linear network."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from robust_arch.architectures import ArchSpec, build
from robust_arch.architectures.build import Classifier, Normalize
from robust_arch.attacks import ThreatModel
from robust_arch.evaluation.predictors import PREDICTORS, Start, gradient_norm, ntk_condition_number, tangent_kernel
from robust_arch.evaluation.smoothness import upper_bounds

K = 3


def linear(seed=0):
    torch.manual_seed(seed)
    return Classifier(Normalize([0.0], [1.0]), nn.Sequential(nn.Flatten(), nn.Linear(16, K)))


def batch(n=6, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 1, 4, 4, generator=generator), torch.randint(0, K, (n,), generator=generator)


def test_the_tangent_kernel_of_a_linear_network_is_k_times_that_of_its_inputs():
    # f = 1^T (W x + b): df/dW = 1 x^T, df/db = 1, so Theta_ij = K (<x_i, x_j> + 1)
    x, _ = batch()
    flat = x.flatten(1).double()
    expected = K * (flat @ flat.T + 1)
    assert torch.allclose(tangent_kernel(linear(), x), expected)
    assert ntk_condition_number(linear(), x) == pytest.approx(float(torch.linalg.cond(expected)), rel=1e-9)


def test_of_two_equal_images_the_kernel_is_singular():
    x, _ = batch()
    assert ntk_condition_number(linear(), torch.cat([x, x[:1]])) == float("inf")


def test_the_gradient_norm_of_a_linear_network_is_that_of_the_closed_form():
    # dL/dW = mean (p - e_y) x^T, dL/db = mean (p - e_y)
    net, (x, y) = linear(), batch()
    flat = torch.cat([x.flatten(1), torch.ones(len(x), 1)], dim=1).double()
    layer = net.network[1]
    logits = flat @ torch.cat([layer.weight, layer.bias[:, None]], dim=1).double().T
    away = logits.softmax(dim=1) - nn.functional.one_hot(y, K)
    assert gradient_norm(net, x, y) == pytest.approx((away.T @ flat / len(x)).norm().item(), rel=1e-9)


def test_the_network_is_left_unchanged_and_batch_statistics_are_used():
    net = build(ArchSpec("wide_resnet", (1, 1, 1), (4, 4, 4)), 3, (1, 8, 8), seed=0)
    x, y = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])
    before = {name: value.clone() for name, value in net.state_dict().items()}
    values = [gradient_norm(net, x, y), ntk_condition_number(net, x)]
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    net.eval()
    assert [gradient_norm(net, x, y), ntk_condition_number(net, x)] == values
    # as training starts: statistics of the batch
    started = deepcopy(net).double().train()
    nn.functional.cross_entropy(started(x.double()), y).backward()
    norm = torch.cat([parameter.grad.flatten() for parameter in started.parameters()]).norm()
    assert values[0] == pytest.approx(norm.item(), rel=1e-9)


def test_bound_and_lipschitz_constant_of_a_linear_network():
    net, (x, y) = linear(), batch()
    start = Start(net, x, y, ThreatModel("linf", "8/255"), 0)
    # every direction changes the logits by W d: at most the sum of the absolute weights per unit of the l-inf norm
    found = PREDICTORS["local_lipschitz"](start)
    assert 0 < found <= net.network[1].weight.abs().sum().item() * (1 + 1e-6)
    assert PREDICTORS["operator_bound"](start) is None  # not a family with bounds


def test_the_bound_is_that_of_the_record():
    net = build(ArchSpec("wide_resnet", (1, 1, 1), (4, 4, 4)), 3, (1, 8, 8), seed=0)
    start = Start(net, torch.rand(2, 1, 8, 8), torch.tensor([0, 1]), ThreatModel("linf", "8/255"), 0)
    assert PREDICTORS["operator_bound"](start) == pytest.approx(upper_bounds(net.eval(), (1, 8, 8))["network"])
