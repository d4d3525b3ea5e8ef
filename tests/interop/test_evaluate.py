"""`python -m robust_arch.evaluate` on every kind of file; a shipped network against a separate loop."""

import functools
from pathlib import Path

import numpy as np
import PIL.Image
import pyautoattack
import pytest
import torch
from commands import call
from composition import configuration
from pyautoattack.examples.resnet import ResNet18
from torch.nn import functional as F

from robust_arch.architectures import ArchSpec, build
from robust_arch.common.randomness import example_keys, uniform
from robust_arch.data.digits import Digits
from robust_arch.errors import InputError
from robust_arch.evaluate import evaluate
from robust_arch.interop import export_checkpoint
from robust_arch.runs import load_study

SHIPPED = Path(pyautoattack.__file__).parent / "examples" / "model_test.pt"
# smooth random images, drawn from these seeds, that the shipped network puts into all of its ten classes
SEEDS = [326, 268, 643, 332, 762, 422, 789, 1934, 1423, 97, 628, 566]
EPS = 1 / 255  # the network was not trained against attacks: at 8/255 no example survives


def smooth_image(seed):
    """(1, 3, 32, 32) in [0, 1], in steps of 1/255: coloured or grey noise of 2 to 16 pixels, enlarged."""
    generator = torch.Generator().manual_seed(seed)
    side = (2, 3, 4, 5, 6, 8, 10, 12, 16)[seed % 9]
    noise = torch.rand(1, 1 + 2 * (seed // 9 % 2), side, side, generator=generator)
    noise = noise * (0.5 + torch.rand(1, 3, 1, 1, generator=generator))
    return F.interpolate(noise, size=32, mode="bilinear", align_corners=False).clamp(0, 1).mul(255).round() / 255


@pytest.fixture(scope="module")
def shipped():
    net = ResNet18()
    net.load_state_dict(torch.load(SHIPPED, weights_only=True, map_location="cpu"))
    return net.eval()


@pytest.fixture(scope="module")
def folder(shipped, tmp_path_factory):
    """Images in folders by the shipped network's prediction; also them and their labels, in the order of reading."""
    root = tmp_path_factory.mktemp("images")
    images = torch.cat([smooth_image(seed) for seed in SEEDS])
    with torch.no_grad():
        labels = shipped(images).argmax(dim=1)
    assert sorted(set(labels.tolist())) == list(range(10))
    for seed, image, label in zip(SEEDS, images, labels.tolist(), strict=True):
        pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
        for part in ("train", "test"):
            (root / part / f"class{label}").mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(pixels).save(root / part / f"class{label}" / f"{seed:05}.png")
    order = np.lexsort((SEEDS, labels.numpy()))
    return root, images[order], labels[order]


def attacked(net, x, y, start, steps, step_size):
    """Signed-gradient steps on cross-entropy inside the ball and the box."""
    x_adv = start
    for _ in range(steps):
        x_adv = x_adv.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(net(x_adv), y, reduction="sum"), x_adv)
        x_adv = torch.clamp(x_adv + step_size * gradient.sign(), min=x - EPS, max=x + EPS).clamp(0, 1)
    return x_adv.detach()


def robust(net, x, y, name):
    """Number of examples that survive an attack; random starts are those of the record's seed."""
    if name == "fgsm":
        x_adv = attacked(net, x, y, x, 1, EPS)
    else:
        keys = example_keys(0, torch.arange(len(x)))
        start = (x + EPS * (2 * uniform(keys, tuple(x.shape[1:])) - 1)).clamp(0, 1)
        x_adv = attacked(net, x, y, start, 20, EPS / 10)
    with torch.no_grad():
        return int((net(x_adv).argmax(dim=1) == y).sum())


@pytest.mark.parametrize(
    "attacks", [["fgsm"], pytest.param(["fgsm", "pgd20"], marks=pytest.mark.slow)], ids=lambda names: "-".join(names)
)
def test_the_command_on_a_shipped_resnet18_finds_what_its_own_code_does(attacks, shipped, folder, tmp_path):
    root, x, y = folder
    arguments = [
        f"checkpoint={SHIPPED}", "arch=resnet18", "data=image_folder", f"data.root={root}", "data.name=smooth",
        f"data.cache={tmp_path}/cache", f"evaluate.attacks=[{','.join(attacks)}]", "threat.eps=1/255",
        "trainer.accelerator=cpu",
    ]  # fmt: skip
    done = call("robust_arch.evaluate", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (row,) = load_study(tmp_path / "results" / "external").to_dict("records")
    assert (row["arch"], row["n_test"], row["clean_acc"]) == ("resnet18", len(SEEDS), 100.0)
    assert (row["params"], row["macs"]) == (11_173_962, 555_422_720)
    for name in attacks:
        expected = robust(shipped, x, y, name)
        assert 0 < expected < len(SEEDS)  # an attack that does nothing, or everything, would show nothing
        # gradients near 0 may change their sign with the order of summation, which may decide one image
        assert abs(row[f"{name}_acc"] / 100 * len(SEEDS) - expected) <= 1 + 1e-6, name


# the data set of the training, as a run records it
TRAINED_ON = {
    "data": {"_target_": "robust_arch.data.digits.Digits", "name": "digits", "eps": {"linf": 0.2}},
    "threat": {"norm": "linf", "eps": 0.05},
}
SPEC = ArchSpec("wide_resnet", (1, 1, 1), (4, 8, 6), stem_width=4)
GIVEN = [f"arch.{key}={value}".replace(" ", "") for key, value in SPEC.to_dict().items()]


def composed(folder, *overrides):
    """The configuration that the command would have, with few examples."""
    few = ("evaluate.attacks=[fgsm]", "evaluate.n=50", "trainer.accelerator=cpu")
    return configuration(folder, *few, *overrides, config="evaluate")


@functools.cache
@torch.enable_grad()  # the first test that asks may do so where gradients are off
def fitted(mean=0.0, std=1.0, val_fraction=0.05):
    """A network that tells some digits apart, normalised like this: the evaluation refuses one at chance."""
    train = Digits(name="digits", val_fraction=val_fraction).load().train
    net = build(SPEC, 10, (1, 8, 8), seed=0).train()
    x, y = train.to_unit(train.images), train.labels
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(25):
        optimizer.zero_grad()
        F.cross_entropy(net((x - mean) / std), y).backward()
        optimizer.step()
    return net.eval()


def save(path, **config):
    net = fitted()
    card = {"schema": 1, "arch": SPEC.to_dict(), "num_classes": 10, "image_shape": [1, 8, 8], **config}
    torch.save({"card": card, "state_dict": {f"net.{key}": value for key, value in net.state_dict().items()}}, path)


def test_every_form_of_a_checkpoint_gets_the_same_numbers(tmp_path):
    save(tmp_path / "own.ckpt", config=TRAINED_ON)
    forms = {"own.ckpt": []}
    for form in ("published", "safetensors", "onnx"):
        export_checkpoint(tmp_path / "own.ckpt", tmp_path / form, form)
        forms[form] = []
    # the other files hold their architecture and training data
    forms["published"] = [*GIVEN, "data=digits", "threat.eps=0.05"]
    records = [
        evaluate(composed(tmp_path, f"checkpoint={tmp_path / name}", *overrides)) for name, overrides in forms.items()
    ]
    frame = load_study(tmp_path / "results" / "external")
    assert len({record.content["run_id"] for record in records}) == len(frame) == 4
    assert frame["clean_acc"].min() > 50
    for column in ("arch", "threat", "data", "n_test", "clean_acc", "fgsm_acc"):
        assert frame[column].nunique() == 1, column
    assert frame["threat"].iloc[0] == "linf-0.05"


def test_without_a_record_of_its_training_data_a_file_needs_data(tmp_path):
    save(tmp_path / "own.ckpt")
    with pytest.raises(InputError, match=r"data = None: expected the data set to evaluate on"):
        evaluate(composed(tmp_path, f"checkpoint={tmp_path}/own.ckpt"))
    assert not (tmp_path / "results").exists()
    record = evaluate(composed(tmp_path, f"checkpoint={tmp_path}/own.ckpt", "data=digits"))
    assert record.content["n_test"] == 50
