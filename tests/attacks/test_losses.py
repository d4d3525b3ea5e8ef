import math

import pytest
import torch

from robust_arch.attacks import CrossEntropy, Margin
from robust_arch.attacks.losses import margin

LOGITS = torch.tensor([[1.0, 3.0, 2.0], [5.0, 0.0, 0.0], [2.0, 2.0, 2.0], [1.0, 3.0, 2.0]])
LABELS = torch.tensor([1, 0, 2, 2])
MARGINS = [2.0 - 3.0, 0.0 - 5.0, 2.0 - 2.0, 3.0 - 2.0]


def test_margin_is_the_best_other_logit_minus_the_own():
    assert margin(LOGITS, LABELS).tolist() == MARGINS


def test_margin_of_negative_logits_is_not_compared_with_zero():
    assert margin(torch.tensor([[-7.0, -3.0]]), torch.tensor([1])).tolist() == [-4.0]


def test_margin_leaves_the_logits_as_they_were():
    logits = LOGITS.clone()
    margin(logits, LABELS)
    assert torch.equal(logits, LOGITS)


def test_cross_entropy_by_hand():
    # p = (1/4, 3/4) and (1/2, 1/2)
    logits = torch.tensor([[0.0, math.log(3)], [2.0, 2.0]])
    value = CrossEntropy().prepare(None, None, torch.tensor([0, 1]), None)(logits, 0)
    torch.testing.assert_close(value, torch.tensor([math.log(4), math.log(2)]))


@pytest.mark.parametrize("loss", [CrossEntropy(), Margin()], ids=repr)
def test_losses_are_computed_in_float32(loss):
    logits = torch.tensor([[0.0, 1.0, -3.0]])
    y = torch.tensor([2])
    value = loss.prepare(None, None, y, None)(logits.bfloat16(), 0)
    assert value.dtype == torch.float32
    assert torch.equal(value, loss.prepare(None, None, y, None)(logits, 0))


def values_and_gradients(loss, logits, y):
    logits = logits.clone().requires_grad_(True)
    values = loss.prepare(None, None, y, None)(logits, 0)
    (gradient,) = torch.autograd.grad(values.sum(), logits)
    return values.detach(), gradient


@pytest.mark.parametrize("loss", [CrossEntropy(), Margin()], ids=repr)
def test_an_example_has_the_same_loss_and_gradient_in_every_batch(loss):
    together = values_and_gradients(loss, LOGITS, LABELS)
    alone = [values_and_gradients(loss, LOGITS[i : i + 1], LABELS[i : i + 1]) for i in range(len(LOGITS))]
    for i, (value, gradient) in enumerate(alone):
        assert torch.equal(together[0][i : i + 1], value)
        assert torch.equal(together[1][i : i + 1], gradient)
