"""The recorded studies on CIFAR-10 (JPEG) are those that their recorded commands plan, on images of the same shape."""

import json
import re
import shlex
from itertools import product

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from experiments.recorded import STUDIES
from robust_arch.study.plan import plan_study

CONF = "experiments/cifar10/conf"
RECORDED = sorted(path.name for path in STUDIES.glob("cifar10_*"))
FEW = ("data.train_images=20", "recipe.batch_size=10", "selection.images=10", "evaluate.n=10", "logger=csv")

PLANNED = ["arch", "params", "macs", "seed"]
TRAINED = ["objective", "recipe", "epochs", "train_threat", "data"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder in the layout of the images: ten classes of a few random ones."""
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for part, name, number in product(("train", "test"), range(10), range(5)):
        path = root / part / str(name) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    return root


def test_there_are_recorded_studies():
    assert {"cifar10_check", "cifar10_pilot"} <= set(RECORDED)


@pytest.mark.parametrize("study", RECORDED)
def test_a_recorded_study_is_what_its_command_plans(study, composed, images, tmp_path):
    command = json.loads((STUDIES / study / "study.json").read_text())["command"]
    words = shlex.split(command)
    assert words[:6] == ["python", "-m", "robust_arch.train", "-m", "--config-dir", CONF]
    searched = f"hydra.searchpath=[file://{STUDIES.parent / 'cifar10' / 'conf'}]"
    swept = [
        [f"{key}={value}" for value in re.split(r",(?![^\[]*\])", values)]  # commas outside brackets
        for key, _, values in (word.partition("=") for word in words[6:])
        if key not in ("data.root", "results_dir", "data.train_images", "selection.images")
    ]
    planned, settings = [], set()
    for given in product(*swept):
        here = (f"data.root={images}", f"data.cache={tmp_path}/cache")
        runs = plan_study(composed(searched, *given, *FEW, *here, small=False), []).runs
        planned += [tuple(str(run.row()[key]) for key in PLANNED) for run in runs]
        settings |= {tuple(str(getattr(run.run.facts, key)) for key in TRAINED) for run in runs}
    plan, results = (pd.read_csv(STUDIES / study / f"{name}.csv", dtype=str) for name in ("plan", "results"))
    assert sorted(planned) == sorted(plan[PLANNED].itertuples(index=False, name=None))
    assert settings == set(results[TRAINED].itertuples(index=False, name=None))
