"""A study as a user runs it: the command, its records, and what remains after it is killed."""

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time

import pytest
from commands import SMALL, call
from weights import same_weights, weights

from robust_arch.architectures import ArchSpec, cost
from robust_arch.runs import StudyFolder, load_study

GRID = (
    "hydra/sweeper=budget",
    "study.name=tiny",
    "search.space.depths=[[1],[1,2],[1]]",
    "search.space.widths=[[4],[4,8],[8]]",
    "search.budget.macs=90000",
    "search.budget.tolerance=0.2",
    "search.seeds=[0,1]",
)


def inside_by_hand():
    """The grid's members under the MACs budget, from the cost of each point."""
    points = [ArchSpec("wide_resnet", (1, d, 1), (4, w, 8)) for d in (1, 2) for w in (4, 8)]
    return [spec for spec in points if abs(cost(spec, 10, (1, 8, 8)).macs / 90_000 - 1) <= 0.2]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An undisturbed sweep's folder and how the command ended."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, call("robust_arch.train", "-m", *SMALL, *GRID, cwd=folder)


def comparable(frame):
    """A study's rows without what may differ between two undisturbed sweeps."""
    return frame.drop(columns=["train_seconds"]).sort_values(["run_id", "checkpoint"]).reset_index(drop=True)


def test_every_member_and_seed_is_run_and_nothing_else(finished):
    folder, process = finished
    assert process.returncode == 0, process.stderr
    specs = inside_by_hand()
    assert 1 < len(specs) < 4  # the budget leaves some in and some out
    frame = load_study(folder / "results" / "tiny")
    expected = {("-".join(map(str, s.depths)), "-".join(map(str, s.widths)), seed) for s in specs for seed in (0, 1)}
    assert set(zip(frame["depths"], frame["widths"], frame["seed"], strict=True)) == expected
    assert set(frame["status"]) == {"completed"}


def test_plan_and_results_are_on_disk(finished):
    study = StudyFolder(finished[0] / "results" / "tiny")
    with study.plan_path.open() as handle:
        rows = list(csv.DictReader(handle))
    assert list(rows[0]) == ["run_id", "arch", "params", "macs", "seed"]
    assert {row["run_id"] for row in rows} == {run.run_id for run in study.runs()}
    with study.results_path.open() as handle:
        assert len(list(csv.DictReader(handle))) == 2 * len(rows)  # best and last


def test_the_same_command_again_does_nothing(finished):
    folder, _ = finished
    files = {path: path.stat().st_mtime_ns for path in folder.rglob("*.ckpt")}
    again = call("robust_arch.train", "-m", *SMALL, *GRID, cwd=folder)
    assert again.returncode == 0
    assert "6 of 6 runs are done already" in again.stderr
    assert files == {path: path.stat().st_mtime_ns for path in folder.rglob("*.ckpt")}


def start(folder, *overrides):
    return subprocess.Popen(
        [sys.executable, "-m", "robust_arch.train", "-m", *SMALL, *GRID, *overrides],
        cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


def wait_for(condition, process):
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "the sweep ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
def test_killed_in_a_run_and_started_again_it_ends_with_the_same_weights(finished, tmp_path):
    runs = tmp_path / "results" / "tiny" / "runs"
    process = start(tmp_path)
    wait_for(lambda: len(list(runs.glob("*/checkpoints/last.ckpt"))) == 2, process)  # in the middle of the second run
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert call("robust_arch.train", "-m", *SMALL, *GRID, cwd=tmp_path).returncode == 0
    studies = [StudyFolder(folder / "results" / "tiny") for folder in (finished[0], tmp_path)]
    for undisturbed, killed in zip(*(study.runs() for study in studies), strict=True):
        assert undisturbed.run_id == killed.run_id
        assert same_weights(weights(undisturbed), weights(killed))
    frames = [comparable(load_study(folder / "results" / "tiny")) for folder in (finished[0], tmp_path)]
    assert frames[0].equals(frames[1])


@pytest.mark.slow
def test_sigterm_is_recorded_and_can_be_resumed(tmp_path):
    runs = tmp_path / "results" / "tiny" / "runs"
    process = start(tmp_path, "trainer.max_epochs=500", "search.seeds=[0]")
    wait_for(lambda: list(runs.glob("*/checkpoints/last.ckpt")), process)
    process.terminate()
    assert process.wait(timeout=60) != 0
    (status,) = (json.loads(path.read_text()) for path in runs.glob("*/status.json"))
    assert status["state"] == "planned"
    assert "interrupted" in status["error"]


def test_a_broken_run_does_not_stop_the_sweep_and_shows_in_the_exit_status(tmp_path):
    # the rate diverges whatever the architecture; natural training with the other objective goes on
    process = call(
        "robust_arch.train", "-m", *SMALL, *GRID, "search.seeds=[0]", "recipe.gradient_clip=null",
        "recipe.optimizer.lr=0.1,1e30", "evaluate.attacks=[fgsm]", cwd=tmp_path,
    )  # fmt: skip
    assert process.returncode == 1
    frame = load_study(tmp_path / "results" / "tiny")
    counts = frame.groupby("status")["run_id"].nunique().to_dict()
    assert counts == {"completed": 3, "diverged": 3}
    assert "diverged" in process.stderr


def test_a_study_of_its_own_by_config_dir(tmp_path):
    (tmp_path / "mine" / "study").mkdir(parents=True)
    (tmp_path / "mine" / "study" / "own.yaml").write_text(
        "# @package _global_\n"
        "defaults:\n  - override /hydra/sweeper: budget\n"
        "search:\n  space:\n    depths: [[1], [1], [1]]\n    widths: [[4], [4], [4, 8]]\n"
    )
    (tmp_path / "mine" / "attack").mkdir()
    (tmp_path / "mine" / "attack" / "pgd3.yaml").write_text(
        "_target_: robust_arch.attacks.PGD\nsteps: 3\nrel_step_size: 0.5\n"
    )
    process = call(
        "robust_arch.train", "--config-dir", "mine", "-m", *SMALL, "study=own", "evaluate.attacks=[pgd3]",
        cwd=tmp_path,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    frame = load_study(tmp_path / "results" / "own")
    assert frame["pgd3_acc"].notna().all()
    assert len(frame) == 4
    study = StudyFolder(tmp_path / "results" / "own")
    assert study.about.command.startswith("python -m robust_arch.train -m --config-dir mine ")
    for run in study.runs():
        assert run.result.command.startswith("python -m robust_arch.train --config-dir mine ")
        evaluation = json.loads(next(run.path.glob("evaluations/*.json")).read_text())
        assert "--config-dir mine " in str(evaluation)
    repeated = call(*shlex.split(run.result.command)[2:], cwd=tmp_path)  # as the card says
    assert repeated.returncode == 0, repeated.stderr
    assert "is done already" in repeated.stderr


# the second of the three needs terabytes
BROKEN = ("search.space.depths=[[1],[1],[1]]", "search.space.widths=[[4],[4,2000000,8],[4]]")


def test_an_architecture_without_room_in_memory_is_recorded_and_the_others_are_done(tmp_path):
    process = call("robust_arch.train", "-m", *SMALL, "hydra/sweeper=budget", *BROKEN, cwd=tmp_path)
    assert process.returncode == 1
    runs = StudyFolder(tmp_path / "results" / "single").runs()
    ends = {run.status.run.widths: (run.state, run.end, run.status.attempts) for run in runs}
    assert ends == {
        "4-4-4": ("completed", "completed", 1),
        "4-2000000-4": ("failed", "out_of_memory", 2),
        "4-8-4": ("completed", "completed", 1),
    }


def test_stopped_on_failure_what_has_not_begun_does_not_begin(tmp_path):
    arguments = ("robust_arch.train", "-m", *SMALL, "hydra/sweeper=budget", *BROKEN)
    process = call(*arguments, "--stop-on-failure", cwd=tmp_path)
    assert process.returncode == 1
    assert "stopped after a failure; the remaining runs were not started" in process.stderr
    study = StudyFolder(tmp_path / "results" / "single")
    assert [run.state for run in study.runs()].count("completed") == 1
    assert len(list(study.runs())) == 2
    call(*arguments, cwd=tmp_path)  # another sweep, not told to stop, goes on
    assert sorted(run.state for run in study.runs()) == ["completed", "completed", "failed"]
