"""The code of docs/recipes.md runs: parts of a user's own package through the commands and from Python."""

import json
import re
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from commands import SMALL, call
from torch import nn

from robust_arch import evaluate_model
from robust_arch.architectures import ArchSpec, family
from robust_arch.configuration.settings import read_settings
from robust_arch.errors import InputError

RECIPES = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
MODULES = ("my_families", "my_data", "my_objectives", "my_attacks", "library_attacks")


def block(language, marker):
    """The one block of code in the recipes that contains the marker."""
    found = [
        each for each in re.findall(rf"^```{language}\n(.*?)^```", RECIPES, re.DOTALL | re.MULTILINE) if marker in each
    ]
    assert len(found) == 1, (marker, len(found))
    return found[0]


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with the recipes' modules and YAML files, and an installed package with the recipes' family."""
    markers = ("class Pointwise", "class Arrays", "class Blend", "class Noise", "class LibraryAttack")
    for module, marker in zip(MODULES, markers, strict=True):
        (tmp_path / f"{module}.py").write_text(block("python", marker))
    files = {
        "data/arrays": "my_data.Arrays",
        "objective/blend": "my_objectives.Blend",
        "recipe/nesterov": "name: nesterov",
        "attack/pgd100": "steps: 100",
    }
    for file, marker in files.items():
        path = tmp_path / "mine" / f"{file}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block("yaml", marker))
    (tmp_path / "mine" / "attack" / "noise.yaml").write_text("_target_: my_attacks.Noise\n")
    installed = tmp_path / "site" / "my_package-1.dist-info"
    installed.mkdir(parents=True)
    (tmp_path / "my_families.py").rename(tmp_path / "site" / "my_families.py")
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1\n")
    group, (name, value) = (
        "robust_arch.families",
        re.findall(r'^(\w+) = "(.*)"$', block("toml", "my_families"), re.M)[0],
    )
    (installed / "entry_points.txt").write_text(f"[{group}]\n{name} = {value}\n")
    generator = np.random.default_rng(0)
    parts = {"train": 100, "test": 40}
    arrays = {f"{part}_x": generator.integers(0, 256, (n, 1, 8, 8), dtype=np.uint8) for part, n in parts.items()}
    np.savez(tmp_path / "arrays.npz", **arrays, **{f"{part}_y": np.arange(n) % 4 for part, n in parts.items()})
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "site")])  # the commands add the current folder
    yield tmp_path
    for module in MODULES:
        sys.modules.pop(module, None)
    family._family.cache_clear()


def test_every_part_of_a_package_of_ones_own_trains_and_is_recorded(own):
    words = [word for word in SMALL if not word.startswith(("arch", "recipe", "evaluate.attacks"))]
    words += ["--config-dir", "mine", "data=arrays", "objective=blend", "recipe=nesterov", "recipe.batch_size=32"]
    words += ["arch.family=pointwise", "arch.depths=[2,1]", "arch.widths=[4,8]", "evaluate.attacks=[noise,pgd100]"]
    done = call("robust_arch.train", *words, "evaluate.checkpoints=[last]", "trainer.max_epochs=1", cwd=own)
    assert done.returncode == 0, done.stderr
    (row,) = pd.read_csv(own / "results" / "single" / "results.csv").to_dict("records")
    assert (row["family"], row["data"], row["objective"]) == ("pointwise", "arrays", "blend")
    assert row["recipe"].startswith("nesterov")
    assert row["params"] == 4 + 16 + 32 + 32 + 4
    (run,) = (own / "results" / "single" / "runs").iterdir()
    (record,) = (json.loads(path.read_text()) for path in (run / "evaluations").glob("*.json"))
    assert record["n_test"] == 40
    # random labels cannot be learnt: either both attacks ran, or accuracy is at chance
    assert set(record["attacks"]) == {"noise", "pgd100"} or "usual causes" in record["invalid"][0]


def test_only_a_target_that_is_not_found_elsewhere_is_looked_for_in_the_current_folder(own, composed, monkeypatch):
    path = [each for each in sys.path if each not in ("", str(own))]  # as an installed command has it
    monkeypatch.setattr(sys, "path", path)
    monkeypatch.chdir(own)
    read_settings(composed("trainer.callbacks=[{_target_:pytorch_lightning.callbacks.Timer}]"))
    with pytest.raises(InputError, match="nowhere"):
        read_settings(composed("trainer.callbacks=[{_target_:nowhere.Timer}]"))
    assert str(own) not in sys.path
    read_settings(composed("objective._target_=my_objectives.Blend"))
    assert sys.path[-1] == str(own)


@pytest.mark.parametrize("content", ["raise RuntimeError('no')", "FAMILY = object()", ""])
def test_a_plug_in_that_is_no_family_is_one_error(own, content):
    (own / "site" / "my_families.py").write_text(content)
    with pytest.raises(ValueError, match=r"arch\.family.*my_families:FAMILY"):
        ArchSpec("pointwise", (1, 1), (4, 4))


def test_an_attack_of_another_library_is_recorded_with_its_version(own, linear, monkeypatch):
    monkeypatch.syspath_prepend(str(own))
    from library_attacks import LibraryAttack

    calls = []

    def noisy(net, x, y, eps):
        """Stands for another library: it leaves the ball, and draws from torch's global random state."""
        assert not net.training
        calls.append(torch.rand(1).item())
        return x + 5 * eps * torch.where(y == 0, 1.0, -1.0).view(-1, 1, 1, 1)

    net = linear([[0.0] * 16, [1.0] * 16], [8.0, 0.0])  # class 1 where the mean pixel is above 1/2
    levels = torch.tensor([0.2] * 5 + [0.45] * 5 + [0.55] * 5 + [0.8] * 5).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    data = (levels, torch.tensor([0] * 10 + [1] * 10))
    attack = LibraryAttack(function=noisy, library="torch", block_size=8)
    state = torch.get_rng_state()
    result = evaluate_model(net, data, "linf-0.1", {"noisy": attack}, own / "out")
    assert result.attacks["noisy"].percent == 50  # projected to a distance of 0.1: those at 0.05 from 1/2 fall
    assert result.attacks["noisy"].implementation == f"torch {version('torch')}"
    assert "noisy" in result.attacks["noisy"].settings["function"]
    assert len(calls) == len(set(calls)) == 3
    assert torch.equal(torch.get_rng_state(), state)
    first = list(calls)
    evaluate_model(net, data, "linf-0.1", {"noisy": attack}, own / "out", rerun=True)
    assert calls[3:] == first


def test_our_attacks_train_in_a_loop_of_ones_own():
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(64) % 2
    x = (0.3 + 0.4 * y.view(-1, 1, 1, 1) + 0.1 * torch.rand(64, 1, 4, 4, generator=generator)).clamp(0, 1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    nn.init.zeros_(net[1].weight)
    code = block("python", "for step, (x, y) in enumerate(loader)")
    exec(code, {"net": net, "loader": [(x, y)] * 30, "optimizer": torch.optim.SGD(net.parameters(), 1.0)})
    assert net.training
    assert (net(x).argmax(1) == y).all()


def test_the_lines_for_any_network_run(own, monkeypatch, capsys):
    monkeypatch.chdir(own)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    nn.init.zeros_(net[1].weight)
    nn.init.zeros_(net[1].bias)
    exec(block("python", "print(result.clean.percent"), {"net": net})
    assert capsys.readouterr().out.startswith("10.0 [")  # all logits are 0: class 0, 36 of 360, which is at chance
    assert (own / "my_net" / "card.md").is_file()
