"""Planted attacks and small evaluations, which the tests of records, cascades and resumption share."""

import json
import logging

import numpy as np
import torch
from pyautoattack.square import SquareAttack

from robust_arch.attacks import Attack, ThreatModel
from robust_arch.data import ImageSet
from robust_arch.evaluation import EvaluationRecord, EvaluationSettings, NamedAttack, Subject, extend, select_examples
from robust_arch.runs import RunFacts

CPU = torch.device("cpu")
THREAT = ThreatModel("linf", "0.1")
SUBJECT = Subject("0123456789ab", "best", "raw", THREAT, "planted")
_ARCH = {"arch": "planted_net", "family": "wide_resnet", "depths": "1-1-1", "widths": "4-8-8", "params": 3242}
_TRAINING = {"objective": "sat", "recipe": "digits", "train_threat": "linf-0.1", "data": "planted", "epochs": 1}
FACTS = RunFacts(run_id="0123456789ab", study="planted", seed=0, macs=120_000, **_ARCH, **_TRAINING)


class Forbidden(Attack):
    """Must not run."""

    def run(self, net, x, y, threat, seed, index):
        raise AssertionError("this attack was run")


class Outside:
    """Returns images outside the ball, without the wrapper that would project them."""

    block_size, min_classes, implementation = None, 2, "planted"

    def __call__(self, net, x, y, threat, *, seed, index):
        return x - 0.2


class Flips(Attack):
    """Brightens its victims, which the network of `grey_images` takes for class 1; remembers its calls."""

    implementation = "planted 1"

    def __init__(self, victims, warning=None):
        self.victims, self.warning, self.calls = victims, warning, []

    @property
    def seen(self):
        return [i for call in self.calls for i in call]

    def run(self, net, x, y, threat, seed, index):
        self.calls.append(index.tolist())
        if self.warning:
            logging.getLogger("robust_arch.attacks.planted").warning("%s", self.warning)
        moved = torch.tensor([i in self.victims for i in index.tolist()])
        return torch.where(moved.view(-1, 1, 1, 1), x + 0.0625, x)


def grey_images(linear, zeros, ones):
    """A network that says class 0, or 1 as soon as an image is brighter; equal grey images, the last of class 1."""
    net = linear([[0.0] * 16, [1.0] * 16], [0.0, -16 * 0.53])
    pixels = torch.full((zeros + ones, 1, 4, 4), 64, dtype=torch.uint8)
    return net, ImageSet(pixels, torch.tensor([0] * zeros + [1] * ones), 2, max_value=128)


def random_images(net, n, wrong_every=4, seed=0):
    """Random images with 129 grey levels, labelled as `net` says but for each `wrong_every`-th."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 129, (n, 1, 4, 4), generator=generator, dtype=torch.uint8)
    with torch.no_grad():
        labels = net(pixels.float() / 128).argmax(dim=1)
    if wrong_every:
        labels[::wrong_every] = (labels[::wrong_every] + 1) % 5
    return ImageSet(pixels, labels, 5, max_value=128)


def named(name, attack, **settings):
    return NamedAttack(name, attack, settings)


def evaluated(folder, net, images, *attacks, n=None, subject=SUBJECT, rerun=False, **settings):
    """The record after one evaluation, as a new process finds and extends it."""
    record = EvaluationRecord(folder, subject, select_examples(images, n))
    asked = EvaluationSettings(attacks=attacks, n=n, **settings)
    if rerun:
        record.forget(asked)
    extend(record, net, asked, subject.threat, CPU, {"command": "planted"})
    return record


def on_disk(record):
    """What the files say, as plain data."""
    with np.load(record.arrays_path, allow_pickle=False) as arrays:
        return json.loads(record.json_path.read_text()), {name: arrays[name].tolist() for name in arrays.files}


def without_times(record):
    """`on_disk` without the seconds that attacks and stages took."""
    content, arrays = on_disk(record)
    for attack in content["attacks"].values():
        for part in (attack, *attack.get("stages", [])):
            del part["seconds"]
    return content, arrays


def shorten_square(monkeypatch):
    """AutoAttack's Square with 200 queries instead of 5,000, whoever calls it: most of the suite's time."""
    whole = SquareAttack.perturb

    def perturb(self, *args, **settings):
        self.n_queries = 200
        return whole(self, *args, **settings)

    monkeypatch.setattr(SquareAttack, "perturb", perturb)
