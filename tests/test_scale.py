"""The arithmetic of a large study against hand counts, counted passes, and schedules known in closed form."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from experiments.scale import passes, scale, schedule
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


def test_a_schedule_by_hand():
    placed = schedule.schedule([3, 2, 2, 4], 2)
    assert [(part.worker, part.start, part.end) for part in placed] == [(0, 0, 3), (1, 0, 2), (1, 2, 4), (0, 3, 7)]
    assert schedule.makespan(placed) == 7
    assert schedule.lower_bound([3, 2, 2, 4], 2) == 5.5
    assert schedule.makespan(schedule.schedule([3, 2, 2, 4], 2, between=0.5)) == 7.5
    assert schedule.makespan(schedule.schedule([4, 3, 2, 2], 2)) == 6  # longest first


@pytest.mark.parametrize("workers", [2, 3, 5])
def test_the_worst_case_of_graham_is_reached(workers):
    # Graham 1966: W (W - 1) runs of 1 and then one of W take 2 W - 1, where W is possible
    seconds = [1] * (workers * (workers - 1)) + [workers]
    assert schedule.makespan(schedule.schedule(seconds, workers)) == 2 * workers - 1
    assert schedule.makespan(schedule.schedule(schedule.longest_first(seconds), workers)) == workers


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), st.integers(1, 3))
def test_grahams_bounds_hold(seconds, workers):
    best = optimum(seconds, workers)
    own = schedule.makespan(schedule.schedule(seconds, workers))
    ordered = schedule.makespan(schedule.schedule(schedule.longest_first(seconds), workers))
    assert schedule.lower_bound(seconds, workers) <= best <= own <= (2 - 1 / workers) * best
    assert best <= ordered <= (4 / 3 - 1 / (3 * workers)) * best + 1e-9


@given(st.lists(st.integers(1, 20), min_size=1, max_size=8), st.integers(1, 4))
def test_without_disturbances_it_is_the_plain_schedule(seconds, workers):
    outcome = schedule.disturbed(seconds, workers, schedule.Disturbances())
    assert outcome.makespan == schedule.makespan(schedule.schedule(seconds, workers))
    assert (outcome.preemptions, outcome.failures, outcome.lost, outcome.undone) == (0, 0, 0, [])


def in_turn(*values):
    rest = iter(values)
    return lambda: next(rest, float("inf"))


@pytest.mark.parametrize(
    ("unit", "startup", "lost", "ends"),
    [
        (1, 0, 0.5, 12.5),  # away at 4.5 with 4 kept, back at 6.5, 6 to go
        (4, 0, 0.5, 12.5),
        (5, 0, 4.5, 16.5),  # nothing kept
        (1, 1, 0.5, 14.5),  # 3.5 trained, 3 kept; 1 of startup and 7 to go
    ],
)
def test_a_preemption_by_hand(unit, startup, lost, ends):
    disturbances = schedule.Disturbances(until_preemption=in_turn(4.5), unit=unit, pause=2, startup=startup)
    outcome = schedule.disturbed([10], 1, disturbances)
    assert (outcome.makespan, outcome.preemptions, outcome.lost) == (ends, 1, lost)


def test_a_preempted_run_goes_on_before_what_has_not_begun():
    # A (10) is preempted at 4, B (3) has not begun: 4 + 6 for A, then 3
    outcome = schedule.disturbed([10, 3], 1, schedule.Disturbances(until_preemption=in_turn(4)))
    assert outcome.makespan == 13


def test_failed_runs_wait_for_the_others_and_are_tried_again():
    # the first of three fails after 3 of 10 seconds, 2 of them kept: 3 + 4 on one worker, 5 on the other, then 8
    disturbances = schedule.Disturbances(until_failure=in_turn(3), unit=2)
    outcome = schedule.disturbed([10, 5, 4], 2, disturbances)
    assert (outcome.makespan, outcome.failures, outcome.lost, outcome.undone) == (15, 1, 1, [])
    always = schedule.Disturbances(until_failure=lambda: 1, unit=2, retries=2)
    assert schedule.disturbed([10], 1, always).undone == [0]
    assert schedule.disturbed([10], 1, always).failures == 3


THREAT = ThreatModel("linf", "8/255")


@pytest.mark.parametrize(
    ("objective", "loss"),
    [("sat", None), ("trades", KLToClean()), ("mart", None)],
)
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
