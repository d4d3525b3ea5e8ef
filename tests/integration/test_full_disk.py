"""A results folder on a file system of one megabyte: a message, an exit status, and nothing torn."""

import json
import subprocess

import numpy as np
import pandas as pd
import pytest
import torch
from commands import SMALL, call, command

from robust_arch.runs import load_study


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte in memory, for as long as the test lasts."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root may mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)  # a logger of a run that failed may linger


def assert_nothing_torn(folder):
    for path in folder.rglob("*"):
        assert not path.name.endswith(".tmp"), path
        if path.suffix == ".json" and "wandb" not in path.parts:
            json.loads(path.read_text())
        elif path.suffix == ".csv":
            pd.read_csv(path)
        elif path.suffix == ".npz":
            np.load(path)
        elif path.suffix == ".ckpt":
            torch.load(path, weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("logger", ["csv", "wandb"])
def test_a_sweep_reports_it_and_leaves_whole_files(small_disk, tmp_path, logger):
    plan = ("search.space.depths=[[1],[1],[1]]", "search.space.widths=[[8],[16],[16,24,32]]", f"logger={logger}")
    arguments = ("robust_arch.train", "-m", *SMALL, *plan, "hydra/sweeper=budget", f"results_dir={small_disk}")
    full = (command if logger == "wandb" else call)(*arguments, cwd=tmp_path)  # wandb's own process would stay here
    assert full.returncode == 1
    assert "No space left on device" in full.stderr
    assert_nothing_torn(small_disk)
    frame = load_study(small_disk / "single")
    assert 1 <= frame.loc[frame["status"] == "completed", "run_id"].nunique() < 3
    subprocess.run(["mount", "-o", "remount,size=20m", small_disk], check=True)
    after = call(*arguments, cwd=tmp_path)
    assert after.returncode == 0, after.stderr
    frame = load_study(small_disk / "single")
    assert frame["run_id"].nunique() == 3
    assert not set(frame["status"]) & {"failed", "diverged"}


def test_one_run_on_a_disk_without_room_for_its_status(small_disk, tmp_path):
    (small_disk / "filler").write_bytes(bytes(1 << 20))
    full = call("robust_arch.train", *SMALL, f"results_dir={small_disk}/results", cwd=tmp_path)
    assert full.returncode == 1
    assert full.stderr.splitlines()[-1].startswith("error: [Errno 28] No space left on device: ")
    assert "Traceback" not in full.stderr
    assert_nothing_torn(small_disk / "results")
