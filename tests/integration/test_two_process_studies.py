"""Runs on two processes inside a sweep: they complete, and what is left of them after kill -9."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import SMALL, call
from weights import same_weights, weights

from robust_arch.runs import StudyFolder, load_study, metrics

TWO = ("-m", *SMALL, "trainer.devices=2", "study.name=two", "seed=0,1", "evaluate.attacks=[fgsm]")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An undisturbed study's folder and how the command ended."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, call("robust_arch.train", *TWO, cwd=folder)


def study(folder):
    return StudyFolder(folder / "results" / "two")


@pytest.mark.slow
def test_a_sweep_of_runs_on_two_processes_completes(finished):
    folder, process = finished
    assert process.returncode == 0, process.stderr
    frame = load_study(study(folder).path)
    assert sorted(frame["seed"]) == [0, 0, 1, 1]  # best and last
    assert set(frame["status"]) == {"completed"}
    assert set(frame["n_test"]) == {40}
    assert len(list(study(folder).runs())) == 2
    for run in study(folder).runs():
        rows = metrics.read_rows(run.metrics)
        assert [(row["epoch"], row["step"]) for row in rows] == [(0, 3), (1, 6)]


def children(pid):
    """All processes that a process started, and those that they did."""
    try:
        own = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [each for child in map(int, own) for each in (child, *children(child))]


def alive(pid):
    """Whether a process still runs; one that is dead and not yet collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, what):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the children of a process below /proc")
def test_killed_alone_the_parent_leaves_no_process_and_the_study_is_finished_by_the_same_command(finished, tmp_path):
    first = subprocess.Popen(
        [sys.executable, "-m", "robust_arch.train", *TWO],
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        runs = tmp_path / "results" / "two" / "runs"

        def in_the_middle():
            assert first.poll() is None, "the sweep ended before it could be killed"
            return list(runs.glob("*/checkpoints/last.ckpt"))

        wait_until(in_the_middle, "no epoch was finished")
        started = children(first.pid)
        assert len(started) >= 2
        os.kill(first.pid, signal.SIGKILL)  # the parent alone: nobody is left to end the others
        first.wait()
        wait_until(lambda: not any(map(alive, started)), "processes of the killed run go on")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(first.pid, signal.SIGKILL)

    again = call("robust_arch.train", *TWO, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    for undisturbed, killed in zip(study(finished[0]).runs(), study(tmp_path).runs(), strict=True):
        assert undisturbed.run_id == killed.run_id
        assert all(same_weights(weights(undisturbed, which), weights(killed, which)) for which in ("best", "last"))
    for folder in (finished[0], tmp_path):
        for run in study(folder).runs():
            assert [row["epoch"] for row in metrics.read_rows(run.metrics)] == [0, 1]
    counts = ["run_id", "checkpoint", "clean_acc", "fgsm_acc"]
    frames = [load_study(study(folder).path)[counts].sort_values(counts[:2]) for folder in (finished[0], tmp_path)]
    assert frames[0].reset_index(drop=True).equals(frames[1].reset_index(drop=True))
