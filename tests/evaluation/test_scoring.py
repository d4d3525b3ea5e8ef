"""One attack on a set of images, against the attack called by hand and quotients computed by hand."""

import math

import pytest
import torch
from evaluations import CPU
from torch import nn

from robust_arch.attacks import PGD, Attack, Clean, Margin, ThreatModel
from robust_arch.data import ImageSet
from robust_arch.evaluation import Examples, NamedAttack
from robust_arch.evaluation.scoring import Scene, clean_logits, run_attack
from robust_arch.evaluation.smoothness import local_lipschitz

THREAT = ThreatModel("linf", "1/8")


def examples(n=23):
    """Images with 129 levels: in [0, 1] they are multiples of 1/128, exact in float32."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 129, (n, 1, 4, 4), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 5, (n,), generator=generator)
    return Examples(ImageSet(pixels, labels, 5, max_value=128), torch.arange(n) * 3 + 1)


def grey(level, classes=5):
    """Three images of one grey level."""
    pixels = torch.full((3, 1, 4, 4), level, dtype=torch.uint8)
    return Examples(ImageSet(pixels, torch.zeros(3).long(), classes, 128), torch.arange(3))


def unit(found):
    return found.images.images.float() / 128


def attacked(net, found, attack, logits, *, batch_size=100, seed=0):
    scene = Scene(net=net, threat=THREAT, device=CPU, batch_size=batch_size, seed=seed)
    return run_attack(scene, found, NamedAttack("planted", attack, {}), logits, measure=True)


@pytest.fixture
def net(linear):
    """A linear network of five classes."""
    return linear(torch.randn(5, 16, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("size", [1, 7, 23, 100])
def test_batches_hold_each_example_once_in_order(size):
    found = examples()
    batches = list(found.batches(size, CPU))
    assert [len(y) for _, _, y, _ in batches] == [min(size, 23 - start) for start in range(0, 23, size)]
    assert torch.equal(torch.cat([index for *_, index in batches]), torch.arange(23) * 3 + 1)
    assert torch.equal(torch.cat([y for _, _, y, _ in batches]), found.images.labels)
    x = torch.cat([x for _, x, _, _ in batches])
    assert x.dtype == torch.float32
    assert torch.equal(x * 128, found.images.images.float())
    covered = torch.cat([torch.arange(23)[where] for where, *_ in batches])
    assert torch.equal(covered, torch.arange(23))


def test_clean_logits_are_taken_in_evaluation_mode_in_float32_without_gradients():
    found, net, calls = examples(), nn.Flatten().train(), []
    net.register_forward_pre_hook(
        lambda net, args: calls.append((net.training, args[0].dtype, torch.is_grad_enabled(), len(args[0])))
    )
    logits = clean_logits(net, found, CPU, 10)
    assert calls == [(False, torch.float32, False, size) for size in (10, 10, 3)]
    assert torch.equal(logits, unit(found).flatten(1))


def test_logits_that_are_not_finite_are_not_scored(net):
    # argmax of NaN is some class, and would count as right or wrong
    found = examples()
    logits = clean_logits(net, found, CPU, 10)
    logits[[2, 7], 1] = math.nan
    with pytest.raises(FloatingPointError, match="logits of 2 of 23 clean images are NaN or infinite"):
        attacked(net, found, Returns(lambda x: x), logits)
    # one pixel of one image: the logits of that image alone
    moved = Returns(lambda x: torch.where(torch.arange(len(x)).view(-1, 1, 1, 1) == 4, math.inf, x))
    with pytest.raises(FloatingPointError, match="logits of 1 of 23 attacked images are NaN or infinite"):
        attacked(net, found, moved, clean_logits(net, found, CPU, 10))


def test_the_lipschitz_constant_computed_by_hand():
    x = torch.zeros(4, 1, 1, 2)
    x_adv = torch.tensor([[0.25, 0.125], [0.5, -0.5], [0.0, 0.0], [0.0, -0.125]]).view(4, 1, 1, 2)
    logits = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [5.0, 5.0, 5.0]])
    logits_adv = torch.tensor([[2.0, 0.0, 3.5], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [5.0, 4.0, 8.0]])
    # (1 + 2 + 0.5) / 0.25; 0 / 0.5; no quotient; (0 + 1 + 3) / 0.125
    expected = torch.tensor([14.0, 0.0, math.nan, 32.0], dtype=torch.float64)
    found = local_lipschitz(x, x_adv, logits, logits_adv, "l1_linf")
    torch.testing.assert_close(found, expected, equal_nan=True, rtol=0, atol=0)
    # the smallest step there is counts as moved: above 0.25 the float32 numbers are 2^-25 apart
    x = torch.full((1, 1, 1, 1), 0.25)
    x_adv = torch.nextafter(x, torch.ones(()))
    assert local_lipschitz(x, x_adv, torch.zeros(1, 2), torch.tensor([[2.0**-25, 0.0]])).tolist() == [1.0]


def test_the_lipschitz_constant_of_a_linear_network_under_the_sign_step(linear):
    # two classes whose logits move by +-a ||w||_1 under a step of a along the sign: 2 a ||w||_1 / a
    weight = torch.tensor([[1.0, -2.0, 0.5] + [0.25] * 13])
    net = linear(torch.cat([weight, -weight]))
    found = grey(64, classes=2)
    attack = PGD(steps=1, rel_step_size=1.0, start=Clean())
    outcome = attacked(net, found, attack, clean_logits(net, found, CPU, 2), batch_size=2)
    assert outcome.measures["l1_linf"].tolist() == pytest.approx([2 * (3.5 + 13 * 0.25)] * 3)


ATTACKS = {
    "fgsm": PGD(steps=1, rel_step_size=1.0, start=Clean()),
    "pgd": PGD(steps=5, rel_step_size=0.3),
    "margin": PGD(steps=5, rel_step_size=0.3, loss=Margin()),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_outcomes_are_those_of_the_attack_called_by_hand(attack, net):
    found = examples()
    x, y = unit(found), found.images.labels
    x_adv = attack(net, x, y, THREAT, seed=7, index=found.index)
    with torch.no_grad():
        before, after = net(x), net(x_adv)
    outcome = attacked(net, found, attack, before, seed=7)
    assert torch.equal(outcome.predicted, after.argmax(dim=1))
    assert torch.equal(outcome.correct, after.argmax(dim=1) == y)
    for i in range(23):
        change = sum(abs(float(a) - float(b)) for a, b in zip(before[i], after[i], strict=True))
        distance = float((x_adv[i].double() - x[i].double()).abs().max())
        assert float(outcome.measures["l1_linf"][i]) == pytest.approx(change / distance, rel=1e-12)
    # the comparison is empty if the attack does nothing or everything
    assert 0 < int((outcome.predicted == before.argmax(dim=1)).sum()) < 23


def test_the_random_start_follows_the_position_in_the_whole_set(net):
    # evaluated alone or among others, an example meets the same attack
    found, attack = examples(), ATTACKS["pgd"]
    logits = clean_logits(net, found, CPU, 100)
    whole = attacked(net, found, attack, logits)
    chosen = torch.tensor([2, 5, 11])
    part = Examples(found.images.subset(chosen), found.index[chosen])
    alone = attacked(net, part, attack, logits[chosen])
    torch.testing.assert_close(alone.measures["l1_linf"], whole.measures["l1_linf"][chosen], rtol=1e-4, atol=0)
    moved = Examples(found.images.subset(chosen), found.index[chosen] + 1)
    shifted = attacked(net, moved, ATTACKS["pgd"], logits[chosen])
    assert not torch.allclose(shifted.measures["l1_linf"], alone.measures["l1_linf"], rtol=1e-4)


class Returns:
    """Stands for an attack, without the wrapper that keeps an attack's promises."""

    block_size = None

    def __init__(self, change):
        self.change = change

    def __call__(self, net, x, y, threat, *, seed, index):
        return self.change(x)


ONE_OUTSIDE = {
    "ball": lambda x: x + torch.cat([torch.full((1, 1, 4, 4), 0.126), torch.zeros(len(x) - 1, 1, 4, 4)]),
    "ball, by a hair": lambda x: torch.full_like(x, 0.5 + 0.125).nextafter(torch.ones(())),
    "box, above": lambda x: x + 0.0625,
    "box, below": lambda x: x - 0.0625,
}


@pytest.mark.parametrize("change", ONE_OUTSIDE.values(), ids=ONE_OUTSIDE)
def test_images_outside_the_threat_model_are_a_problem(change, net, request):
    found = grey({"box, above": 126, "box, below": 2}.get(request.node.callspec.id, 64))
    (problem,) = attacked(net, found, Returns(change), torch.zeros(3, 5)).problems
    assert problem.startswith("images left linf-0.125 (distance 0.")


def test_images_on_the_surface_are_allowed(net):
    outcome = attacked(net, grey(64), Returns(lambda x: x + 0.125), torch.zeros(3, 5))
    assert outcome.problems == []
    assert outcome.predicted.tolist() == [int(net(torch.full((1, 1, 4, 4), 0.625)).argmax())] * 3


class Blocks(Attack):
    """Counts the images of its calls."""

    block_size = 9

    def __init__(self):
        self.sizes = []

    def run(self, net, x, y, threat, seed, index):
        self.sizes.append(len(x))
        return x


def test_an_attack_with_a_block_size_is_called_on_such_blocks(net):
    found, attack = examples(), Blocks()
    logits = clean_logits(net, found, CPU, 100)
    outcome = attacked(net, found, attack, logits, batch_size=4)
    assert attack.sizes == [9, 9, 5]
    assert outcome.measures["l1_linf"].isnan().all()
    assert torch.equal(outcome.correct, logits.argmax(dim=1) == found.images.labels)
