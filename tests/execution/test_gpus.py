"""Which GPU a run takes, by names alone: no GPU is needed."""

import subprocess
import sys

import pytest

from robust_arch.execution.gpus import claimed, visible_gpus

HOLD = """
import sys
from pathlib import Path
from robust_arch.execution.gpus import claimed
with claimed(["0", "1"], 1, Path(sys.argv[1])) as gpus:
    print(gpus[0], flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path):
    """A function that starts another process which takes a GPU; returns it and the GPU."""
    started = []

    def start():
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return process, int(process.stdout.readline())

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_runs_beside_each_other_take_different_gpus_and_then_share(holder, tmp_path):
    assert [holder()[1] for _ in range(4)] == [0, 1, 0, 1]
    with claimed(["0", "1"], 2, tmp_path) as gpus:
        assert gpus == (0, 1)


def test_a_killed_run_gives_its_gpu_back(holder, tmp_path):
    first, _ = holder()
    holder()
    first.kill()
    first.wait()
    with claimed(["0", "1"], 1, tmp_path) as gpus:
        assert gpus == (0,)


def test_within_one_process_each_claim_counts(tmp_path):
    with claimed(["a", "b", "c"], 2, tmp_path) as first, claimed(["a", "b", "c"], 2, tmp_path) as second:
        assert first == (0, 1)
        assert second == (0, 2)  # c is free; a and b have one run each
    with claimed(["a", "b", "c"], 2, tmp_path) as again:
        assert again == (0, 1)


def test_names_are_those_of_the_machine_whatever_the_process_sees(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert visible_gpus(2) == ["3", "5"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert visible_gpus(2) == ["0", "1"]
    assert visible_gpus(0) == []
