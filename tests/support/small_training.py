"""A training of a few seconds' fraction: a network of three layers on 6x6 images of three classes."""

import copy
from functools import partial

import torch
from torch import nn

from robust_arch.attacks import PGD, ThreatModel
from robust_arch.data import ImageSet, Splits
from robust_arch.data.augment import CropFlip
from robust_arch.objectives.sat import SAT
from robust_arch.training.datamodule import StudyData
from robust_arch.training.fit import fit
from robust_arch.training.module import AdversarialTraining
from robust_arch.training.recipe import Recipe
from robust_arch.training.schedule import Cosine
from robust_arch.training.settings import TrainerSettings

STEPS, EPOCHS, BATCH = 3, 4, 16  # steps per epoch, epochs, images per step
SIZE = BATCH * STEPS + 5  # training images
INNER = PGD(steps=2, rel_step_size=0.5)


class Small(nn.Sequential):
    """conv-BatchNorm-SiLU-dropout-pool-linear; smooth, so that a last bit does not switch a unit on or off."""

    def __init__(self, dropout=0.0):
        super().__init__(
            nn.Conv2d(1, 3, 3, padding=1),
            nn.BatchNorm2d(3),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(12, 3),
        )


def images(seed, size):
    """Noise, whose class is the brightest third of the image's rows: something that can be learnt."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (size, 1, 6, 6), generator=generator, dtype=torch.uint8)
    return ImageSet(pixels, pixels.float().view(size, 3, 12).mean(dim=2).argmax(dim=1), num_classes=3)


def train(folder, *, net=None, objective=None, epochs=EPOCHS, precision="32", fold=False, lr=0.5, clip=None, **choices):
    """Returns the states of `best` and `last`, the rows of metrics, and the network's state after 0, 1, ... steps.

    choices: further fields of the recipe.
    """
    states, rows = [], []
    torch.manual_seed(3)
    recipe = Recipe(
        name="x",
        epochs=epochs,
        batch_size=BATCH,
        optimizer=partial(torch.optim.SGD, lr=lr, momentum=0.9, weight_decay=1e-2),
        schedule=Cosine(),
        augment=CropFlip(padding=1, flip=True),
        gradient_clip=clip,
        **choices,
    )
    settings = TrainerSettings(
        max_epochs=epochs, accelerator="cpu", precision=precision, threads=1, progress_bar=False, fold=fold
    )
    module = AdversarialTraining(
        net or Small(),
        objective or SAT(name="sat", attack=INNER),
        ThreatModel("linf", 0.02),
        recipe,
        INNER,
        epochs=epochs,
        steps_per_epoch=STEPS,
        max_value=255,
        seed=5,
        attackable=settings.attackable,
    )

    def noted(*arguments, step=module.optimizer_step):
        step(*arguments)
        states.append(copy.deepcopy(module.net.state_dict()))

    states.append(copy.deepcopy(module.net.state_dict()))
    module.optimizer_step = noted
    splits = Splits(images(0, SIZE), images(1, 40), images(2, 4))
    data = StudyData(splits, batch_size=BATCH, drop_last=True, val_images=40, seed=5)
    fit(module, data, settings, folder=folder, record=rows.append)
    best, last = (torch.load(folder / f"{name}.ckpt", weights_only=True)["state_dict"] for name in ("best", "last"))
    return best, last, rows, states
