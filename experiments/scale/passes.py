"""How many passes through a network training and evaluation make per image: each attack's gradients, and the rest."""

from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

from robust_arch.attacks.autoattack import RELATIVE_SECONDS
from robust_arch.common.paths import conf_dir

# A forward pass is 1, the gradient with respect to the input 1, that with respect to the weights 1. Each is counted as
# the network's MACs: an upper bound, as the first layer of an outer step needs no gradient with respect to its input.
FORWARD, TO_INPUT, TO_WEIGHTS = 1, 1, 1
ATTACK_STEP = FORWARD + TO_INPUT
OUTER_STEP = FORWARD + TO_INPUT + TO_WEIGHTS


def _attack_passes(file: str, *keys: str) -> int:
    """Passes of the gradients of an attack in a file of `conf`."""
    node: Any = OmegaConf.load(conf_dir() / f"{file}.yaml")
    for key in keys:
        node = node[key]
    return int(instantiate(node).gradients) * ATTACK_STEP


TRAINING = {
    "sat": _attack_passes("objective/sat", "attack") + OUTER_STEP,
    # p(x) of the inner loss; natural and adversarial
    "trades": FORWARD + _attack_passes("objective/trades", "attack") + 2 * OUTER_STEP,
    "mart": _attack_passes("objective/mart", "attack") + 2 * OUTER_STEP,
}
# clean, then the selection attack and one step of fgsm, each scored
SELECTION = FORWARD + (_attack_passes("train", "selection", "attack") + FORWARD) + (ATTACK_STEP + FORWARD)
# what is attacked is scored twice, as a check; pgd20 has a gradient for the first-order condition on top
SCORED_TWICE = 2 * FORWARD
EVALUATION = {
    "clean": FORWARD,
    "fgsm": _attack_passes("attack/fgsm") + SCORED_TWICE,
    "pgd20": _attack_passes("attack/pgd20") + SCORED_TWICE + ATTACK_STEP,
    "cw40": _attack_passes("attack/cw40") + SCORED_TWICE,
}
# made for an image that no part of the standard suite fools; APGD computes a gradient at its start and after each of
# 100 steps, FAB-T looks at the class after each of 100 steps, both for 9 target classes, Square asks 5,000 times
AUTOATTACK = {
    "apgd-ce": 101 * ATTACK_STEP,
    "apgd-t": 9 * 101 * ATTACK_STEP,
    "fab-t": 9 * 100 * (ATTACK_STEP + FORWARD),
    "square": 5000 * FORWARD,
}
# A forward pass alone takes less than half of one with a gradient, so counts overstate FAB-T and above all Square.
# These are passes of the same time: the passes of APGD-CE times the measured seconds in units of APGD-CE's.
AUTOATTACK_TIME = {name: seconds * AUTOATTACK["apgd-ce"] for name, seconds in RELATIVE_SECONDS.items()}


class CountedNetwork(nn.Module):
    """A linear network that counts its passes over images; `winner` is a class that nothing within reach changes."""

    def __init__(self, pixels: int, classes: int, winner: int | None = None) -> None:
        super().__init__()
        self.images = {"forward": 0, "to_input": 0, "to_weights": 0}
        self.layer = nn.Linear(pixels, classes)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            self.layer.weight.copy_(torch.randn(classes, pixels, generator=generator) / pixels)
            self.layer.bias.zero_()
            if winner is not None:
                self.layer.bias[winner] = 3.0

    def forward(self, x: Tensor) -> Tensor:
        self.images["forward"] += len(x)
        logits: Tensor = self.layer(x.flatten(1))
        if logits.requires_grad:
            learning = self.layer.weight.requires_grad
            logits.register_hook(lambda gradient: self._count(len(gradient), learning=learning))  # type: ignore[no-untyped-call]
        return logits

    def _count(self, images: int, *, learning: bool) -> None:
        self.images["to_input"] += images
        self.images["to_weights"] += images * learning

    def passes(self, images: int) -> float:
        """All passes so far, an image."""
        return sum(self.images.values()) / images


def counted_autoattack(images: int = 4, size: int = 8) -> dict[str, float]:
    """Passes that the library makes for an image that stands, by part, counted while it runs."""
    import pyautoattack

    net = CountedNetwork(3 * size * size, 10, winner=0).eval().requires_grad_(False)
    x = torch.rand(images, 3, size, size, generator=torch.Generator().manual_seed(1))
    y = torch.zeros(images, dtype=torch.int64)
    found = {}
    for name in AUTOATTACK:
        suite = pyautoattack.AutoAttack(net, norm="Linf", eps=8 / 255, version="standard", seed=0, device="cpu")
        suite.attacks_to_run = [name]
        before = net.passes(images)
        suite.run_standard_evaluation(x, y, batch_size=images)
        found[name] = net.passes(images) - before
    return found
