"""What a training step hands to the objective: augmented images mixed with a partner, and their labels."""

from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robust_arch.attacks import PGD, ThreatModel
from robust_arch.data.augment import CropFlip
from robust_arch.data.mixing import CutMix, MixUp
from robust_arch.objectives.natural import Natural
from robust_arch.training.module import AdversarialTraining
from robust_arch.training.recipe import Recipe
from robust_arch.training.schedule import Cosine

CLASSES = 8


@dataclass(frozen=True, kw_only=True)
class Noting(Natural):
    """Natural training that keeps what it is called with."""

    seen: list = field(default_factory=list)

    def loss(self, net, x, x_adv, y):
        self.seen.append((x.clone(), y.clone()))
        return super().loss(net, x, x_adv, y)


def batch():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (8, 1, 4, 4), generator=generator, dtype=torch.uint8)
    return images, torch.arange(8), torch.arange(8)


def places_of(y):
    """How many places before each image its partner is: the first image's label has shares of classes 0 and -places."""
    return -int(y[0, 1:].argmax() + 1) % 8


def module_of(monkeypatch, ranks=1, rank=0, **ingredients):
    """A module in a process of so many, whose step counter can be set."""
    recipe = Recipe(
        name="r", epochs=3, batch_size=8, optimizer=partial(torch.optim.SGD, lr=0.1), schedule=Cosine(),
        augment=CropFlip(padding=0, flip=False), **ingredients,
    )  # fmt: skip
    module = AdversarialTraining(
        nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES)), Noting(name="n"), ThreatModel("linf", "0.1"), recipe,
        PGD(steps=1, rel_step_size=1.0), epochs=3, steps_per_epoch=2, max_value=255, seed=1, num_classes=CLASSES,
        channels_last=False,
    )  # fmt: skip
    trainer = SimpleNamespace(world_size=ranks)
    position = SimpleNamespace(step=0)
    monkeypatch.setattr(AdversarialTraining, "trainer", trainer, raising=False)
    monkeypatch.setattr(AdversarialTraining, "global_step", property(lambda _: position.step), raising=False)
    monkeypatch.setattr(AdversarialTraining, "global_rank", rank, raising=False)
    monkeypatch.setattr(AdversarialTraining, "current_epoch", 0, raising=False)
    monkeypatch.setattr(module, "all_gather", lambda values: values)
    return module, position


def steps_of(monkeypatch, steps=(0,), **ingredients):
    """The images and labels of these steps of one process."""
    module, position = module_of(monkeypatch, **ingredients)
    for position.step in steps:
        module.training_step(batch(), 0)
    return module.objective.seen


def test_without_ingredients_labels_stay_integers_and_images_as_they_are(monkeypatch):
    images, labels, _ = batch()
    ((x, y),) = steps_of(monkeypatch)
    assert torch.equal(x, images.float() / 255)
    assert torch.equal(y, labels)


def test_an_image_is_blended_with_another_one_and_its_label_in_proportion(monkeypatch):
    images, labels, _ = batch()
    own, one_hot = images.float() / 255, F.one_hot(labels, CLASSES).float()
    shares, places = [], []
    for x, y in steps_of(monkeypatch, steps=range(40), mixup=MixUp(alpha=1), label_smoothing=0.2):
        # 0.2 / 8 for every class, and 0.8 of what mixing gives
        share = (y[0, 0] - 0.025) / 0.8
        shares.append(float(share))
        places.append(places_of(y))
        partners = (labels - places[-1]) % 8
        torch.testing.assert_close(x, share * own + (1 - share) * own[partners])
        torch.testing.assert_close(y, 0.8 * (share * one_hot + (1 - share) * one_hot[partners]) + 0.025)
        assert float(x.max()) <= 1
    assert len(set(shares)) == 40  # a draw per step
    assert set(places) == set(range(1, 8))  # never itself, and every other image


def test_the_pixels_of_a_box_and_its_share_of_the_label_are_the_partners(monkeypatch):
    images, labels, _ = batch()
    own = images.float() / 255
    for x, y in steps_of(monkeypatch, steps=range(5), cutmix=CutMix(window=2)):
        partners = own[(labels - places_of(y)) % 8]
        foreign = (x != own) | (own == partners)
        assert torch.equal(x, torch.where(foreign, partners, own))
        covered = (x != own).any(dim=0)[0]  # a box of at most 2 x 2 pixels
        assert 1 <= int(covered.sum()) <= 4
        torch.testing.assert_close(y[0, 0], 1 - covered.sum() / 16)


def test_the_same_step_is_mixed_alike_and_another_one_otherwise(monkeypatch):
    ingredients = {"mixup": MixUp(alpha=0.5), "cutmix": CutMix(alpha=1)}
    first = steps_of(monkeypatch, steps=(0, 7, 0), **ingredients)
    assert torch.equal(first[0][0], first[2][0])
    assert torch.equal(first[0][1], first[2][1])
    assert not torch.equal(first[0][0], first[1][0])


@pytest.mark.parametrize("ranks", [2, 4])
def test_partners_are_those_of_one_process_whatever_the_number_of_processes(ranks, monkeypatch):
    ingredients = {"mixup": MixUp(alpha=1), "label_smoothing": 0.1}
    ((whole_x, whole_y),) = steps_of(monkeypatch, **ingredients)
    images, labels, index = batch()
    for rank in range(ranks):
        module, _ = module_of(monkeypatch, ranks=ranks, rank=rank, **ingredients)
        whole = {4: images.float() / 255, 2: module.recipe.soft_labels(labels, CLASSES)}
        # by the number of dimensions: what the processes would send, in their order
        shares = {ndim: torch.stack([each[r::ranks] for r in range(ranks)]) for ndim, each in whole.items()}
        monkeypatch.setattr(module, "all_gather", lambda values, shares=shares: shares[values.ndim])
        module.training_step((images[rank::ranks], labels[rank::ranks], index[rank::ranks]), 0)
        ((x, y),) = module.objective.seen
        assert torch.equal(x, whole_x[rank::ranks])
        assert torch.equal(y, whole_y[rank::ranks])


def test_training_accuracy_counts_the_label_with_the_largest_share(monkeypatch):
    module, position = module_of(monkeypatch, mixup=MixUp(alpha=1))
    images, labels, index = batch()
    for position.step in range(6):
        module._sums = {}
        module.training_step((images, labels, index), 0)
        x, y = module.objective.seen[-1]
        expected = labels if float(y[0, 0]) > 0.5 else (labels - places_of(y)) % 8
        right = (module.net(x).argmax(dim=1) == expected).float().mean()
        assert float(module._sums["train_acc"]) / 8 == pytest.approx(100 * float(right))
