"""The objective that docs/recipes.md writes out."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from robust_arch.attacks import Attack, ThreatModel

RECIPES = Path(__file__).parents[2] / "docs" / "recipes.md"


class Brighter(Attack):
    def run(self, net, x, y, threat, seed, index):
        return x + 0.1


def test_it_blends_the_losses_of_clean_and_adversarial_images(linear):
    section = RECIPES.read_text(encoding="utf-8").split("## Add an objective")[1]
    names = {"__name__": "my_objectives"}
    exec(re.search(r"```python\n(.*?)```", section, re.S)[1], names)
    weight = np.array([[1.0, -2.0], [0.5, 3.0], [-1.0, 0.0]])
    x, y = np.array([[0.2, 0.7], [0.5, 0.1]]), np.array([2, 1])

    def cross_entropy(images):
        logits = images @ weight.T
        return np.mean(logsumexp(logits, axis=1) - logits[[0, 1], y])

    objective = names["Blend"](name="blend", attack=Brighter(), share=0.25)
    images = torch.tensor(x, dtype=torch.float32).view(2, 1, 1, 2)
    net, threat = linear(weight), ThreatModel("linf", "0.2")
    loss = objective(net, images, torch.tensor(y), threat, seed=0, index=torch.arange(2))
    assert loss.total.item() == pytest.approx(0.25 * cross_entropy(x + 0.1) + 0.75 * cross_entropy(x), rel=1e-5)
    np.testing.assert_allclose(loss.logits.numpy(), (x + 0.1) @ weight.T, rtol=1e-5)
