"""kill -9 at random moments, of a sweep and of its workers, until the plan is done: no result is lost or changed."""

import os
import random
import signal
import subprocess
import sys

import pandas as pd
import pytest
from commands import SMALL, call, command
from weights import same_weights, weights

from robust_arch.runs import StudyFolder

ROUNDS = 6
STUDY = (
    "robust_arch.train", "-m", *SMALL, "hydra/sweeper=budget",
    "search.space.depths=[[1],[1],[1]]", "search.space.widths=[[4],[4,8],[8]]", "search.seeds=[0,1]",
    "trainer.max_epochs=12", "study.retries=1000",
)  # fmt: skip
PLAN = (*STUDY, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    done = call(*STUDY, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def start(folder):
    return subprocess.Popen(
        [sys.executable, "-m", *PLAN], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def workers(pid):
    """Processes below this one that work on a run: whoever holds a lock can be killed."""
    listed = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(child): int(parent) for child, parent in (line.split() for line in listed.splitlines())}
    below = {pid}
    for _ in range(4):
        below |= {child for child, parent in parents.items() if parent in below}
    return sorted(below - {pid})


def kill(pid):
    """Kill if it is still there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def disturb(process, chance):
    """Kill the sweep, or one of its workers, at a random moment; returns the number of processes that were killed."""
    try:
        process.wait(chance.uniform(0.5, 9))
    except subprocess.TimeoutExpired:
        found = workers(process.pid)
        return kill(chance.choice(found) if found and chance.random() < 0.5 else process.pid)
    return 0


def results(folder):
    frame = pd.read_csv(folder / "results" / "single" / "results.csv")
    return frame.drop(columns="train_seconds").sort_values(["run_id", "checkpoint"]).reset_index(drop=True)


@pytest.mark.slow
def test_killed_again_and_again_the_results_are_those_of_an_undisturbed_sweep(undisturbed, tmp_path):
    chance = random.Random(20)
    killed = 0
    process = start(tmp_path)
    for _ in range(ROUNDS):
        killed += disturb(process, chance)
        if process.poll() is not None:
            process = start(tmp_path)
    end = command(*PLAN, cwd=tmp_path)
    process.kill()
    process.wait()
    assert end.returncode == 0, end.stderr
    assert killed >= ROUNDS // 2
    pd.testing.assert_frame_equal(results(tmp_path), results(undisturbed))
    other = StudyFolder(tmp_path / "results" / "single")
    for run in StudyFolder(undisturbed / "results" / "single").runs():
        for which in ("best", "last"):
            assert same_weights(weights(run, which), weights(other.run(run.run_id), which))


@pytest.mark.slow
def test_two_sweeps_started_at_once_share_the_work_and_do_nothing_twice(undisturbed, tmp_path):
    both = [start(tmp_path) for _ in range(2)]
    outputs = [process.communicate(timeout=300)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    runs = list(StudyFolder(tmp_path / "results" / "single").runs())
    assert [run.status.attempts for run in runs] == [1] * 4
    assert len({run.status.pid for run in runs}) > 1
    pd.testing.assert_frame_equal(results(tmp_path), results(undisturbed))
