"""Two processes on the CPU against one with the same global batch.

The network has no BatchNorm, whose statistics are those of a process's own share, and nothing in it is random. What
is left between one process and two is rounding: the gradient is the average of two half-batch means instead of one
mean, summed in another order, which moves it by a few units of float32's last place (6e-8 of the largest summand).
After four steps at rate 0.1 on weights of at most 1 that stays below TOLERANCE, while the weights themselves move by
more than 10,000 times as much. The activation is smooth, so that a last bit does not switch a unit on or off.

Everything is at module level, because the processes are spawned and import this module.
"""

import json
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from robust_arch.attacks import PGD, Gaussian, KLToClean, ThreatModel
from robust_arch.data import ImageSet, Splits
from robust_arch.data.augment import CropFlip
from robust_arch.data.mixing import CutMix, MixUp
from robust_arch.data.npz_images import NpzImages
from robust_arch.errors import InputError
from robust_arch.objectives.mart import MART
from robust_arch.objectives.natural import Natural
from robust_arch.objectives.sat import SAT
from robust_arch.objectives.trades import TRADES
from robust_arch.training.averaging import EMA
from robust_arch.training.datamodule import StudyData
from robust_arch.training.fit import fit
from robust_arch.training.module import AdversarialTraining
from robust_arch.training.recipe import Recipe
from robust_arch.training.schedule import Cosine
from robust_arch.training.settings import TrainerSettings
from robust_arch.training.weight_perturbation import AWP

TOLERANCE = 1e-6
SIZE = 40  # of the training set
INNER, NEAR = PGD(steps=3, rel_step_size=0.4), partial(PGD, steps=3, rel_step_size=0.4, start=Gaussian(std=0.001))
OBJECTIVES = {
    "natural": Natural(name="natural"),
    "sat": SAT(name="sat", attack=INNER),
    "trades": TRADES(name="trades", attack=NEAR(loss=KLToClean())),
    "mart": MART(name="mart", attack=NEAR()),
}


class Smooth(nn.Module):
    """conv-SiLU-conv-pool-linear, on images scaled up so that an attack matters."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(4, 6, 3, padding=1),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(24, 3),
        )

    def forward(self, x):
        return self.body(8 * (x - 0.5))


def append(path, row):
    """Record a row, from whichever process it is called in."""
    with path.open("a") as handle:
        handle.write(json.dumps(row) + "\n")


def random_images(seed, size):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (size, 1, 6, 6), generator=generator, dtype=torch.uint8)
    # the class is the brightest third of the image's rows: something that can be learnt
    return ImageSet(images, images.float().view(size, 3, 12).mean(dim=2).argmax(dim=1), num_classes=3)


def extra_images(folder):
    """30 images with their labels, mapped from a file."""
    images = random_images(7, 30)
    path = folder / "extra.npz"
    np.savez(path, image=images.images.permute(0, 2, 3, 1).contiguous().numpy(), label=images.labels.numpy())
    return NpzImages(path=str(path), fraction=0.375).load(random_images(0, SIZE))


def train(objective, devices, folder, *, batch_size=16, drop_last=True, extra=None, **choices):
    """Two epochs. Returns the weights before and after, and the recorded rows. choices: of the recipe."""
    torch.manual_seed(3)
    net = Smooth()
    before = {name: weight.clone() for name, weight in net.state_dict().items()}
    recipe = Recipe(
        name="x",
        epochs=2,
        batch_size=batch_size,
        optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=2e-4),
        schedule=Cosine(),
        augment=CropFlip(padding=1, flip=True),
        gradient_clip=0.2,  # below the norm that the gradients have
        drop_last=drop_last,
        **choices,
    )
    module = AdversarialTraining(
        net,
        objective,
        ThreatModel("linf", 0.2),
        recipe,
        INNER,
        epochs=2,
        steps_per_epoch=recipe.steps_per_epoch or SIZE // batch_size,
        max_value=255,
        seed=5,
        num_classes=3,
        prepare=partial(torch.set_num_threads, 1),
    )
    # 17 held-out images in batches of 16: of the last batch the second process has none
    splits = Splits(random_images(0, SIZE), random_images(1, 17), random_images(2, 4), extra)
    shape = {"batch_size": batch_size, "drop_last": drop_last, "steps": recipe.steps_per_epoch}
    data = StudyData(splits, val_images=17, seed=5, **shape)
    settings = TrainerSettings(
        max_epochs=2, accelerator="cpu", devices=devices, precision="32", threads=1, progress_bar=False
    )
    folder.mkdir(exist_ok=True)
    rows = folder / f"rows-{devices}.jsonl"
    fit(module, data, settings, folder=folder / str(devices), record=partial(append, rows))
    content = torch.load(folder / str(devices) / "last.ckpt", weights_only=True)
    after = {name.removeprefix("net."): weight for name, weight in content["state_dict"].items()}
    return before, after, [json.loads(line) for line in rows.read_text().splitlines()]


def farthest(first, second):
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "ingredients"),
    [
        *((name, {}) for name in OBJECTIVES),
        # partners may be in the other process
        ("trades", {"mixup": MixUp(alpha=1.0), "cutmix": CutMix(alpha=1.0), "label_smoothing": 0.1}),
        ("mart", {"cutmix": CutMix(window=3), "attack_warmup": 1}),
    ],
)
def test_two_processes_train_what_one_does(name, ingredients, tmp_path):
    (before, one, rows_of_one), (same_before, two, rows_of_two) = (
        train(OBJECTIVES[name], devices, tmp_path, **ingredients) for devices in (1, 2)
    )
    assert farthest(before, same_before) == 0
    assert farthest(before, one) > 1e4 * TOLERANCE
    assert farthest(one, two) <= TOLERANCE
    assert [(row["epoch"], row["step"]) for row in rows_of_two] == [(0, 2), (1, 4)]  # per epoch, not per process
    for of_one, of_two in zip(rows_of_one, rows_of_two, strict=True):
        assert of_one.keys() == of_two.keys()
        for key in ("epoch", "step", "lr", "val_clean_acc", "val_robust_acc", "val_robust_count"):
            assert of_one[key] == of_two[key], key
        for key in of_one.keys() - {"seconds"}:
            # a divergence is a difference of logarithms of order 1, whose rounding stays
            assert of_two[key] == pytest.approx(of_one[key], rel=1e-5, abs=1e-6), key
    assert {path.name for path in (tmp_path / "2").iterdir()} == {"best.ckpt", "last.ckpt"}


@pytest.mark.slow
def test_two_processes_share_batches_with_extra_images(tmp_path):
    settings = {"extra": extra_images(tmp_path), "steps_per_epoch": 3, "drop_last": False}
    (_, one, rows), (before, two, _) = (train(OBJECTIVES["sat"], n, tmp_path, **settings) for n in (1, 2))
    assert farthest(before, one) > 1e4 * TOLERANCE
    assert farthest(one, two) <= TOLERANCE
    assert [row["step"] for row in rows] == [3, 6]
    _, without, _ = train(OBJECTIVES["sat"], 1, tmp_path / "without", steps_per_epoch=3)
    assert farthest(one, without) > 1e3 * TOLERANCE


@pytest.mark.slow
def test_two_processes_perturb_and_average_weights_as_one_does(tmp_path):
    # perturbed by each process along the gradient of its own share, weights would differ by about gamma
    choices = {"awp": AWP(gamma=0.05), "averaging": EMA(decay=0.5)}
    results = [train(OBJECTIVES["trades"], devices, tmp_path, **choices) for devices in (1, 2)]
    (_, one, rows_of_one), (_, two, rows_of_two) = results
    _, plain, _ = train(OBJECTIVES["trades"], 1, tmp_path / "plain", averaging=EMA(decay=0.5))
    assert {name.partition(".")[0] for name in one} == {"averages", "body"}
    assert farthest(one, plain) > 1e3 * TOLERANCE
    assert farthest(one, two) <= TOLERANCE
    for of_one, of_two in zip(rows_of_one, rows_of_two, strict=True):
        for key in of_one.keys() - {"seconds"}:
            assert of_two[key] == pytest.approx(of_one[key], rel=1e-5, abs=1e-6), key


@pytest.mark.parametrize(("batch_size", "drop_last"), [(16, False), (15, True)])
def test_unequal_shares_are_refused(batch_size, drop_last, tmp_path):
    with pytest.raises(InputError, match=r"drop_last = False|batch_size = 15"):
        train(OBJECTIVES["sat"], 2, tmp_path, batch_size=batch_size, drop_last=drop_last)
