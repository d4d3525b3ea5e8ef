"""Any network through `evaluate_model`: closed forms on linear networks, what stays as it was, and what is refused."""

import json
import logging
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from evaluations import random_images
from torch import nn

from robust_arch import evaluate_model
from robust_arch.analysis.paired import compare_records
from robust_arch.attacks import PGD, Attack, ThreatModel
from robust_arch.data import Dataset, ImageSet
from robust_arch.errors import InputError
from robust_arch.runs import Evaluation

FEW = ("fgsm", "pgd20")


@pytest.fixture
def sign(linear):
    """Two classes by the mean pixel: class 1 above 1/2. Under l-inf an image falls where it is within eps of 1/2."""
    return linear([[0.0] * 16, [1.0] * 16], [8.0, 0.0])


def grey(*levels):
    return torch.tensor(levels).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).clone()


LEVELS = (0.1, 0.2, 0.3, 0.45, 0.48, 0.52, 0.55, 0.7, 0.8, 0.9)
LABELS = torch.tensor([0] * 5 + [1] * 5)


def test_the_five_lines_of_the_documentation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    from robust_arch import evaluate_model

    result = evaluate_model(net, "digits", "linf-0.1", ["fgsm"], out="my_net")
    assert result.n_test == 360
    assert (tmp_path / "my_net" / f"{result.eval_id}.json").is_file()


def test_accuracies_intervals_record_and_card_are_those_of_the_closed_form(sign, tmp_path):
    result = evaluate_model(sign, (grey(*LEVELS), LABELS), "linf-0.1", FEW, tmp_path, name="sign")
    assert isinstance(result, Evaluation)
    # right on all ten; six are further from 1/2 than 0.1
    assert (result.clean.percent, result.attacks["pgd20"].percent, result.worst_case.percent) == (100, 60, 60)
    # Wilson, 6 of 10: (0.6 + z^2/20 -+ z sqrt(0.24/10 + z^2/400)) / (1 + z^2/10), z = 1.96
    assert result.worst_case.interval == pytest.approx([31.27, 83.18], abs=0.01)
    content = json.loads((tmp_path / f"{result.eval_id}.json").read_text())
    assert Evaluation.read(content) == result
    with np.load(tmp_path / f"{result.eval_id}.npz") as arrays:
        assert arrays["pgd20"].tolist() == [True] * 3 + [False] * 4 + [True] * 3
    card = (tmp_path / "card.md").read_text()
    assert card.startswith("# Model card: sign\n")
    assert "34 parameters" in card
    assert "| pgd20 | 60.00 | 31.27 to 83.18 | 10 |" in card
    assert compare_records(*[tmp_path / f"{result.eval_id}.json"] * 2)["pgd20"].difference == 0


def test_the_same_images_in_any_form_give_the_same_record(linear, tmp_path):
    net = linear(torch.randint(-16, 17, (5, 16), generator=torch.Generator().manual_seed(1)) / 8)
    planted = random_images(net, 40)
    images = ImageSet(planted.images, planted.labels, 5)  # in 255ths

    @dataclass(frozen=True, kw_only=True)
    class Planted(Dataset):
        def read(self):
            return images, images

    unit = images.images.float() / 255
    forms = {
        "images": images,
        "dataset": Planted(name="planted"),
        "uint8": (images.images, images.labels),
        "float": (unit, images.labels),
        "numpy": (unit.double().numpy(), images.labels.int().numpy()),
    }
    found = {
        form: evaluate_model(net, data, ThreatModel("linf", 0.02), "fgsm", tmp_path / form)
        for form, data in forms.items()
    }
    assert len({each.eval_id for each in found.values()}) == 1
    assert len({each.attacks["fgsm"].percent for each in found.values()}) == 1
    assert {form: each.data for form, each in found.items() if each.data != "images"} == {"dataset": "planted"}


def test_a_further_attack_extends_the_record_and_another_network_gets_its_own(sign, linear, tmp_path):
    data = (grey(*LEVELS), LABELS)
    first = evaluate_model(sign, data, "linf-0.1", "fgsm", tmp_path)
    second = evaluate_model(sign, data, "linf-0.1", {"four_steps": PGD(steps=4, rel_step_size=0.5)}, tmp_path)
    assert second.eval_id == first.eval_id
    assert list(second.attacks) == ["fgsm", "four_steps"]
    assert second.attacks["fgsm"].seconds == first.attacks["fgsm"].seconds  # not run again

    class Shifted(nn.Sequential):  # the same tensors, other code
        def forward(self, x):
            return super().forward(x + 0.01)

    assert evaluate_model(Shifted(*sign), data, "linf-0.1", "fgsm", tmp_path).run_id != first.run_id


def test_an_attack_of_ones_own_is_projected_and_can_be_run_again(sign, tmp_path):
    class Up(Attack):
        step = 1.0

        def run(self, net, x, y, threat, seed, index):
            return x + self.step

    data = (grey(*LEVELS), LABELS)
    up = evaluate_model(sign, data, "linf-0.1", {"up": Up()}, tmp_path)
    assert up.attacks["up"].percent == 80  # by 0.1 at most: 0.45 and 0.48 of class 0 fall
    Up.step = 0.0  # other code, the same name and settings
    assert evaluate_model(sign, data, "linf-0.1", {"up": Up()}, tmp_path).attacks["up"].percent == 80
    assert evaluate_model(sign, data, "linf-0.1", {"up": Up()}, tmp_path, rerun=True).attacks["up"].percent == 100


def test_the_module_and_the_process_stay_as_they_were(tmp_path):
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(16, 2)
    )
    net.double().train()[0].eval()
    net[5].weight.requires_grad_(False)
    net[0].weight.grad = torch.ones_like(net[0].weight)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    strides = [each.stride() for each in net.parameters()]
    state, backends = torch.get_rng_state(), (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
    result = evaluate_model(net, (grey(*LEVELS), LABELS), "linf-0.1", "fgsm", tmp_path)
    assert {check.name: check.state for check in result.preflight}["evaluation mode"] == "ok"
    assert all(
        torch.equal(before[key], value) and value.dtype == before[key].dtype for key, value in net.state_dict().items()
    )
    assert [each.training for each in net] == [False, True, True, True, True, True]
    assert [each.requires_grad for each in net.parameters()] == [True, True, True, True, False, True]
    assert [each.stride() for each in net.parameters()] == strides
    assert torch.equal(net[0].weight.grad, torch.ones_like(net[0].weight))
    assert torch.equal(torch.get_rng_state(), state)
    assert backends == (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)


def test_code_that_needs_contiguous_features_is_evaluated(tmp_path):
    class Viewing(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(1, 4, 3), nn.Linear(16, 2)

        def forward(self, x):
            return self.fc(self.conv(x).view(len(x), -1))

    assert evaluate_model(Viewing(), (grey(*LEVELS), LABELS), "linf-0.1", "fgsm", tmp_path).n_test == 10


def test_accuracy_at_chance_names_the_usual_causes(linear, tmp_path, caplog):
    """Two classes swapped in a network that is right otherwise: with K = 2 every image is wrong."""
    net = linear([[1.0] * 16, [0.0] * 16], [0.0, 8.0])
    with caplog.at_level(logging.INFO):
        result = evaluate_model(net, (grey(*LEVELS), LABELS), "linf-0.1", "fgsm", tmp_path)
    (reason,) = result.invalid
    assert "0.0% [0.0, 27.8] of 10, chance 50.0%; usual causes: too little training, a missing normalisation" in reason
    assert reason in caplog.text
    assert reason in (tmp_path / "card.md").read_text()
    assert not result.attacks


class Broken(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.fc, self.change = nn.Linear(16, 2), change

    def forward(self, x):
        return self.change(self.fc(x.flatten(1)))


def nan_for_dark(logits):
    return logits.where(torch.arange(len(logits)).view(-1, 1) < 5, torch.nan)


GOOD = (grey(*LEVELS), LABELS)
NET = Broken(lambda logits: logits)
REFUSED = {
    "no module": (lambda x: x, GOOD, {}, "net = 'function': expected a torch.nn.Module"),
    "shape": (
        Broken(lambda logits: logits[:, :, None]),
        GOOD,
        {},
        r"net = \(2, 2, 1\): expected logits of shape \(2, K\)",
    ),
    "a tuple": (Broken(lambda logits: (logits, 0)), GOOD, {}, "net = 'tuple': expected logits of shape"),
    "classes": (
        NET,
        ImageSet(torch.zeros(4, 1, 4, 4, dtype=torch.uint8), torch.zeros(4).long(), 3),
        {},
        r"shape \(2, 3\)",
    ),
    "NaN logits": (Broken(nan_for_dark), GOOD, {}, "net = 'NaN or infinite logits of 5 of 10 images': expected finite"),
    "other images": (
        NET,
        (torch.zeros(4, 3, 9, 9), torch.zeros(4).long()),
        {},
        r"takes images of shape \(2, 3, 9, 9\)",
    ),
    "normalised": (NET, (grey(-0.1, 0.5), LABELS[4:6]), {}, r"images = \(-0.1\d*, 0.5\): expected numbers in \[0, 1\]"),
    "NaN images": (NET, (grey(float("nan"), 0.5), LABELS[4:6]), {}, r"images = \(nan, nan\)"),
    "0 to 255": (NET, (grey(0.0, 255.0), LABELS[4:6]), {}, r"images = \(0.0, 255.0\)"),
    "int images": (NET, (grey(0, 1), LABELS[4:6]), {}, r"images = .*torch.int64.*expected uint8"),
    "flat images": (NET, (torch.rand(4, 16), LABELS[:4]), {}, r"images = \(\(4, 16\), "),
    "label too large": (NET, (grey(*LEVELS), LABELS + 1), {}, r"labels = \(1, 2\): expected in 0..1"),
    "negative label": (NET, (grey(*LEVELS), LABELS - 1), {}, r"labels = \(-1, 0\): expected in 0..0"),
    "too few labels": (NET, (grey(*LEVELS), LABELS[:3]), {}, r"labels = \(\(3,\), "),
    "float labels": (NET, (grey(*LEVELS), LABELS.float()), {}, "labels = 'torch.float32': expected integers"),
    "no images": (NET, (torch.zeros(0, 1, 4, 4), torch.zeros(0).long()), {}, "images = .*at least one image"),
    "no pair": (NET, grey(*LEVELS), {}, "data = 'Tensor': expected the name of a data set"),
    "data": (NET, "digit", {}, "data = 'digit': expected some of cifar10"),
    "threat": (NET, GOOD, {"threat": "8/255"}, "threat = '8/255': expected a norm and a radius"),
    "norm": (NET, GOOD, {"threat": "linv-8/255"}, "threat.norm = 'linv'"),
    "attack": (NET, GOOD, {"attacks": ["pgd21"]}, "attacks = 'pgd21': expected some of .*pgd20"),
    "attack object": (NET, GOOD, {"attacks": PGD(steps=1, rel_step_size=1)}, "attacks = 'PGD': expected names"),
    "no attack": (NET, GOOD, {"attacks": {"mine": print}}, "attacks.'mine'. = 'builtin"),
    "taken name": (
        NET,
        GOOD,
        {"attacks": {"pgd20": PGD(steps=1, rel_step_size=1)}},
        "attacks = 'pgd20': expected another",
    ),
    "n": (NET, GOOD, {"n": 11}, "evaluate.n = 11: expected at most the 10"),
    "device": (NET, GOOD, {"device": "gpu"}, "device = 'gpu'"),
}


@pytest.mark.parametrize(("net", "data", "changed", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_one_error_before_anything_is_written(net, data, changed, message, tmp_path):
    arguments = {"threat": "linf-0.1", "attacks": "fgsm", **changed}
    with pytest.raises(InputError, match=message):
        evaluate_model(net, data, out=tmp_path / "out", **arguments)
    assert not list((tmp_path).glob("out/*.*s*"))


@pytest.mark.slow
def test_importing_the_package_imports_no_torch():
    loaded = "print('torch' in sys.modules)"
    code = f"import sys, robust_arch; {loaded}; robust_arch.evaluate_model; {loaded}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
