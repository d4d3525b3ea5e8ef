"""The studies of the paper as a user starts them, at each of their sizes; costs are counted on built networks."""

import csv
import re
import shlex
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from robust_arch.architectures import build
from robust_arch.common.paths import conf_dir
from robust_arch.study.plan_table import plans_from_command

REPOSITORY = Path(__file__).parents[2]
SCALES = ("tiny", "small", "paper")
SEEDS = {"tiny": {0, 1, 2}, "small": {0, 1, 2}, "paper": {0}}
# Architectures by plan. The base and three stages of three factors; the base, four widths and three depths; the base,
# three widths and a depth; divisions into 8 parts over 3 stages: 7 * 6 / 2; into 6 over 3: 5 * 4 / 2, and over 4:
# 5 * 4 * 3 / 6. The base and four widths, for each of four betas
COUNTS = {
    "stage_width": [10],
    "stage_depth": [10],
    "capacity": [8],
    "last_stage": [5, 5],
    "budget": [21],
    "families": [10, 10],
    "beta": [5, 5, 5, 5],
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Overrides for a folder of a few images in the layout and the size of CIFAR-10."""
    root = tmp_path_factory.mktemp("cifar10")
    picture = Image.new("RGB", (32, 32))
    for part, count in (("train", 15), ("test", 10)):
        for label in range(10):
            (root / part / str(label)).mkdir(parents=True)
            for number in range(count):
                picture.save(root / part / str(label) / f"{number}.png")
    return ["data=image_folder", f"data.root={root}", f"data.cache={root}/cache", "data.name=cifar10"]


def arguments(study, scale, images):
    swept = ["arch=wrn_34_12,resnet18"] if (study, scale) == ("families", "paper") else []
    data = [] if scale == "tiny" else ["evaluate.n=100", *images]
    return [f"study={study}", f"scale={scale}", *swept, *data]


def counted(spec, num_classes, image_shape):
    """Parameters and MACs of the network itself, which is built without memory for its weights."""
    with torch.device("meta"):
        net = build(spec, num_classes, image_shape)
        macs = []

        def add(layer, inputs, output):
            macs.append(output[0].numel() * layer.weight[0].numel())

        for layer in net.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.register_forward_hook(add)
        net.eval()(torch.zeros(1, *image_shape))
    return {"params": sum(parameter.numel() for parameter in net.parameters()), "macs": sum(macs)}


def test_every_study_of_several_sizes_is_covered_here():
    scaled = {path.stem for path in (conf_dir() / "study").glob("*.yaml") if "/scale" in path.read_text()}
    assert scaled == set(COUNTS)
    assert {path.stem for path in (conf_dir() / "scale").glob("*.yaml")} == set(SCALES)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("study", COUNTS)
def test_every_study_plans_at_every_size(study, scale, images):
    plans = plans_from_command(arguments(study, scale, images))
    assert [len(plan.members.specs) for plan in plans] == COUNTS[study]
    for plan in plans:
        train = plan.runs[0].run.splits.train
        assert {planned.run.settings.seed for planned in plan.runs} == SEEDS[scale]
        assert len(plan.runs) == len(plan.members.specs) * len(SEEDS[scale])
        assert plan.study.name == study
        for spec in plan.members.specs:
            found = counted(spec, train.num_classes, train.image_shape)
            for resource in plan.budget.resources:
                assert abs(found[resource] / getattr(plan.budget, resource) - 1) <= 0.02
            if scale == "small":
                assert found["params"] < 1_000_000


@pytest.mark.parametrize("scale", SCALES)
def test_the_size_decides_data_recipe_and_epochs(scale, images):
    (plan,) = plans_from_command(arguments("capacity", scale, images))
    settings = plan.runs[0].run.settings
    expected = {
        "tiny": ("digits", "digits", 10),
        "small": ("cifar10", "huang2021", 30),
        "paper": ("cifar10", "huang2021", 100),
    }
    assert (settings.dataset.name, settings.recipe.name, settings.trainer.max_epochs) == expected[scale]


@pytest.mark.parametrize("scale", ["small", "paper"])
def test_cifar10_is_the_default_data(scale, composed):
    assert composed("study=capacity", f"scale={scale}", small=False).data.source == "CIFAR10"


def test_a_budget_of_macs_by_override(images):
    command = ["study=budget", "search.budget.params=null", "search.budget.macs=arch"]
    (plan,) = plans_from_command(command)
    # the tiny base: depths 2-2-2, widths 8-16-32, stem 16, one channel of 8x8
    base = 9 * 16 * 64 + (9 * 16 * 8 + 3 * 9 * 64 + 16 * 8) * 64 + (9 * 8 * 16 + 3 * 9 * 256 + 8 * 16) * 16
    base += (9 * 16 * 32 + 3 * 9 * 1024 + 16 * 32) * 4 + 320
    assert (plan.budget.params, plan.budget.macs) == (None, base)
    assert len(plan.members.specs) + plan.members.rejected_count == 21
    for spec in plan.members.specs:
        assert abs(counted(spec, 10, (1, 8, 8))["macs"] / base - 1) <= 0.02


def commands_in(path):
    lines = [line for line in path.read_text().splitlines() if line.startswith("#")]
    return [match.group(1) for line in lines if (match := re.search(r"python -m robust_arch\.train (.*?)\)?$", line))]


@pytest.mark.parametrize("study", [*COUNTS, "demo"])
def test_the_command_in_a_studys_head_plans_it(study, images):
    commands = commands_in(conf_dir() / "study" / f"{study}.yaml")
    assert commands
    for command in commands:
        words = shlex.split(command)
        assert "-m" in words
        assert f"study={study}" in words
        elsewhere = ["evaluate.n=100", *images] if any(word in words for word in ("scale=small", "scale=paper")) else []
        plans = plans_from_command([*words, *elsewhere])
        assert [len(plan.members.specs) for plan in plans] == COUNTS.get(study, [8])


def test_without_a_study_there_is_no_size_and_no_size_in_the_older_studies(composed):
    for overrides in ((), ("study=demo",), ("study=wrn34",)):
        assert composed(*overrides, small=False).study.base is None


def test_the_runs_of_the_demo_are_the_recorded_ones():
    with (REPOSITORY / "experiments" / "demo" / "plan.csv").open() as handle:
        recorded = [row["run_id"] for row in csv.DictReader(handle)]
    (plan,) = plans_from_command(["study=demo"])
    assert [planned.run.run_id for planned in plan.runs] == recorded
