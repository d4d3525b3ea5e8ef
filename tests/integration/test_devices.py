"""Several devices, as two processes on the CPU."""

import pytest
import torch
from commands import SMALL, call

from robust_arch.runs import StudyFolder, load_study, metrics


@pytest.mark.slow  # a second process imports torch
def test_two_processes_train_one_run(tmp_path):
    done = call("robust_arch.train", *SMALL, "trainer.devices=2", "logger=wandb", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    study = StudyFolder(tmp_path / "results" / "single")
    (run,) = study.runs()
    rows = metrics.read_rows(run.metrics)
    assert [(row["epoch"], row["step"]) for row in rows] == [(0, 3), (1, 6)]  # each row once, not once a process
    # 20 held-out images are shared out without duplicates: accuracies are multiples of 5%
    assert all((row["val_clean_acc"] / 5).is_integer() for row in rows)
    assert torch.load(run.checkpoint("last"), weights_only=True)["global_step"] == 6
    assert set(load_study(study.path)["n_test"]) == {40}
