import math

import pytest
import torch

from robust_arch.attacks import CrossEntropy, GuidedMargin, KLToClean, Margin
from robust_arch.attacks.losses import LogitRatio, margin

LOGITS = torch.tensor([[1.0, 3.0, 2.0], [5.0, 0.0, 0.0], [2.0, 2.0, 2.0], [1.0, 3.0, 2.0]])
LABELS = torch.tensor([1, 0, 2, 2])
MARGINS = [2.0 - 3.0, 0.0 - 5.0, 2.0 - 2.0, 3.0 - 2.0]


def test_margin_is_the_best_other_logit_minus_the_own():
    logits = LOGITS.clone()
    assert margin(logits, LABELS).tolist() == MARGINS
    assert torch.equal(logits, LOGITS)
    # negative logits are not compared with zero
    assert margin(torch.tensor([[-7.0, -3.0]]), torch.tensor([1])).tolist() == [-4.0]


def test_cross_entropy_by_hand():
    # p = (1/4, 3/4) and (1/2, 1/2)
    logits = torch.tensor([[0.0, math.log(3)], [2.0, 2.0]])
    value = CrossEntropy().prepare(None, None, torch.tensor([0, 1]), None)(logits, 0)
    torch.testing.assert_close(value, torch.tensor([math.log(4), math.log(2)]))


ALL = [CrossEntropy(), Margin(), LogitRatio(), KLToClean(), GuidedMargin(), GuidedMargin(anchor="start")]
LOSSES = pytest.mark.parametrize("loss", ALL, ids=repr)


@pytest.fixture
def net(linear):
    return linear(torch.randn(3, 4, generator=torch.Generator().manual_seed(2)))


def images(seed):
    return torch.rand(4, 1, 2, 2, generator=torch.Generator().manual_seed(seed))


@LOSSES
def test_losses_are_computed_in_float32_and_no_gradient_flows_into_the_anchor(loss, net):
    x = images(0).requires_grad_(True)
    prepared = loss.prepare(net, x, LABELS, x)
    value = prepared(LOGITS.bfloat16(), 3)
    assert value.dtype == torch.float32
    assert torch.equal(value, prepared(LOGITS, 3))
    assert not value.requires_grad


@LOSSES
@pytest.mark.parametrize("step", [0, 24, 25])
def test_an_example_has_the_same_loss_and_gradient_in_every_batch(step, loss, net):
    net, x, start = net.double(), images(0).double(), images(1).double()

    def values_and_gradients(part):
        logits = LOGITS[part].double().requires_grad_(True)
        values = loss.prepare(net, x[part], LABELS[part], start[part])(logits, step)
        assert values.shape == LABELS[part].shape
        return values.detach(), torch.autograd.grad(values.sum(), logits)[0]

    together = values_and_gradients(slice(None))
    for i in range(4):
        for alone, whole in zip(values_and_gradients(slice(i, i + 1)), together, strict=True):
            torch.testing.assert_close(alone, whole[i : i + 1], rtol=1e-12, atol=1e-12)
