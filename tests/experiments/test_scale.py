"""The arithmetic of a large study against hand counts, counted passes, and bounds against every order of a few runs."""

import itertools
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.scale import passes, scale
from robust_arch.architectures import ArchSpec, build, cost
from robust_arch.attacks import PGD, ThreatModel
from robust_arch.attacks.losses import KLToClean, Margin
from robust_arch.attacks.start import Clean
from robust_arch.data import ImageSet
from robust_arch.evaluation.examples import Examples
from robust_arch.evaluation.scoring import Scene, run_attack
from robust_arch.evaluation.settings import NamedAttack
from robust_arch.objectives.mart import MART
from robust_arch.objectives.sat import SAT
from robust_arch.objectives.trades import TRADES


def optimum(seconds, workers):
    """The shortest makespan, by trying every assignment."""
    return min(
        max(sum(length for length, worker in zip(seconds, assigned, strict=True) if worker == one) for one in assigned)
        for assigned in itertools.product(range(workers), repeat=len(seconds))
    )


def in_order(seconds, workers):
    """When the last run ends if each goes in order to the worker that is free first."""
    free = [0.0] * workers
    for length in seconds:
        first = free.index(min(free))
        free[first] += length
    return max(free)


@settings(max_examples=30)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), st.integers(1, 3))
def test_every_order_ends_between_the_bounds(seconds, workers):
    least, most = scale.bounds(seconds, workers)
    assert least <= optimum(seconds, workers)
    for order in itertools.permutations(seconds):
        assert least <= in_order(order, workers) <= most + 1e-9


@pytest.mark.parametrize("workers", [2, 3, 5])
def test_the_worst_case_of_graham_is_reached(workers):
    # W (W - 1) runs of 1 and then one of W
    seconds = [1] * (workers * (workers - 1)) + [workers]
    assert in_order(seconds, workers) == 2 * workers - 1 == pytest.approx(scale.bounds(seconds, workers)[1])


def test_a_sweep_that_was_run_ended_between_the_bounds():
    runs = pd.read_csv(Path(scale.__file__).with_name("check_runs.csv"))
    least, most = scale.bounds((runs["end"] - runs["start"]).tolist(), 2)
    assert least < runs["end"].max() < most


THREAT = ThreatModel("linf", "8/255")


@pytest.mark.parametrize(("objective", "loss"), [("sat", None), ("trades", KLToClean()), ("mart", None)])
def test_passes_of_training_are_those_that_are_made(objective, loss):
    attack = PGD(steps=10, rel_step_size=0.25, **({"loss": loss} if loss else {}))
    made = {"sat": SAT, "trades": TRADES, "mart": MART}[objective](name=objective, attack=attack)
    net = passes.CountedNetwork(48, 4).train()
    x, y = torch.rand(6, 3, 4, 4), torch.arange(6) % 4
    made(net, x, y, THREAT, 0, torch.arange(6)).total.backward()
    assert net.passes(6) == passes.TRAINING[objective]


@pytest.mark.parametrize(
    ("name", "attack"),
    [
        ("fgsm", PGD(steps=1, rel_step_size=1.0, start=Clean())),
        ("pgd20", PGD(steps=20, rel_step_size=0.1)),
        ("cw40", PGD(steps=40, rel_step_size=0.1, loss=Margin())),
    ],
)
def test_passes_of_an_evaluation_are_those_that_are_made(name, attack):
    net = passes.CountedNetwork(48, 4, winner=0).eval()
    images = torch.randint(0, 256, (6, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    examples = Examples(ImageSet(images, torch.zeros(6, dtype=torch.int64), num_classes=4), torch.arange(6))
    logits = net(images.float() / 255).detach()
    before = net.passes(6)
    scene = Scene(net=net, threat=THREAT, device=torch.device("cpu"), batch_size=3, seed=0)
    run_attack(scene, examples, NamedAttack(name, attack, {}), logits, measure=name == "pgd20")
    assert net.passes(6) - before == passes.EVALUATION[name]


def test_time_of_autoattack_is_divided_as_in_a_published_run():
    # github.com/csdongxian/AWP, AT-AWP on CIFAR-10 under linf, WRN-34-10: percent before each part, seconds after it
    standing, total = (86.23, 57.61, 53.99, 53.97), (2149.2, 14706.7, 30334.6, 46980.2)
    taken = [after - before for after, before in zip(total, (0, *total), strict=False)]
    parts = [share * each for share, each in zip(standing, passes.AUTOATTACK_TIME.values(), strict=True)]
    for found, expected in zip(parts, taken, strict=True):
        assert found / sum(parts) == pytest.approx(expected / total[-1], abs=0.03)


def test_operations_by_hand():
    took = scale.operations(19_132_765_184, "sat")  # WRN-34-R
    # 371 batches of 128, 100 epochs, 23 passes, two operations a multiply-accumulate
    assert took.training == 2 * 19_132_765_184 * 371 * 128 * 100 * 23
    # 1 + (20 + 1) + (2 + 1) passes over 1,000 images an epoch
    assert took.selection == 2 * 19_132_765_184 * 1000 * 100 * 25
    assert took.evaluation == 2 * 19_132_765_184 * 10_000 * 2 * (1 + 4 + 44 + 82)


def test_bytes_of_a_checkpoint_are_those_of_its_tensors():
    spec = ArchSpec("wide_resnet", (2, 1, 2), (8, 24, 16))
    net = build(spec)
    buffers = sum(4 * buffer.numel() for buffer in net.buffers() if buffer.is_floating_point() and buffer.numel() > 3)
    weights = sum(4 * parameter.numel() for parameter in net.parameters())
    assert scale.checkpoint_bytes(cost(spec).params, scale.normalised_channels(spec)) == 2 * weights + buffers


def test_the_plans_are_inside_their_budgets():
    plans = scale.plans()
    assert {name: len(macs) for name, macs in plans.items()} == dict.fromkeys(plans, 1000)
    assert all(abs(macs / 9.58e9 - 1) <= 0.02 for macs in plans["9.58 G MACs"])
