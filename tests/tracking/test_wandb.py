"""What wandb holds of a run, read back from its offline files."""

import pytest
import wandb
from offline_wandb import OfflineRun

from robust_arch.configuration.settings import read_settings
from robust_arch.execution.execute import execute
from robust_arch.execution.run import Run
from robust_arch.runs import metrics


@pytest.fixture
def run(composed):
    """A function from overrides to a loaded run that logs to wandb, offline."""
    return lambda *overrides: Run.load(read_settings(composed("logger=wandb", *overrides)))


def offline_runs(run):
    return [OfflineRun(path) for path in sorted((run.folder.path / "wandb").glob("offline-run-*"))]


def steps(offline):
    return [row["trainer/global_step"] for row in offline.history]


def test_one_run_is_one_wandb_run(run):
    done = run("study.name=mine")
    execute(done)
    (offline,) = offline_runs(done)
    assert (offline.id, offline.group, offline.exit_code) == (f"{done.run_id}-mine", "mine", 0)
    assert offline.config["arch"]["widths"] == [4, 8, 8]
    assert steps(offline) == [3, 6]  # two epochs of three batches
    recorded = metrics.read_rows(done.folder.metrics)
    assert [row["val_robust_acc"] for row in offline.history] == [row["val_robust_acc"] for row in recorded]
    (best,) = (record for record in done.folder.evaluation_records() if record.checkpoint == "best")
    assert offline.summary["best-n40/pgd20_acc"] == best.attacks["pgd20"].percent
    assert wandb.run is None  # finished inside the task: the next job of a sweep starts afresh


def test_after_a_resume_the_newest_run_is_complete_in_itself(run, monkeypatch):
    done = run("trainer.max_epochs=4")
    real_append = metrics.append_row

    def die_after_two(path, row):
        real_append(path, row)
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(metrics, "append_row", die_after_two)
        with pytest.raises(BaseException, match=r".*"):
            execute(done)
    assert execute(done) == "completed"
    (offline,) = offline_runs(done)  # the interrupted one is set aside, so that syncing all uploads each run once
    assert steps(offline) == [3, 6, 9, 12]
    assert len(list((done.folder.path / "wandb").glob("superseded-run-*"))) == 1


def test_a_failed_run_is_finished_too(run, monkeypatch):
    done = run()
    monkeypatch.setattr("robust_arch.training.fit.fit", lambda *args, **kwargs: 1 / 0)
    assert execute(done) == "failed"
    (offline,) = offline_runs(done)
    assert offline.exit_code == 1
    assert offline.summary["state"] == "failed"
    assert wandb.run is None


@pytest.mark.parametrize("broken", ["init", "log"])
def test_wandb_is_never_a_reason_to_fail(run, monkeypatch, caplog, broken):
    def refuse(*args, **kwargs):
        raise OSError("no space left on device")

    if broken == "init":
        monkeypatch.setattr(wandb, "init", refuse)
    else:
        monkeypatch.setattr(wandb.Run, "log", refuse)
    assert execute(run()) == "completed"
    assert "no space left on device" in caplog.text


def test_where_wandb_cannot_be_reached_the_run_is_recorded_offline(run, monkeypatch):
    real = wandb.init

    def unreachable(**options):
        if options["mode"] == "online":
            raise wandb.errors.CommError("Run initialization has timed out after 30.0 sec")
        return real(**options)

    monkeypatch.setattr(wandb, "init", unreachable)
    done = run("logger.mode=online")
    assert execute(done) == "completed"
    (offline,) = offline_runs(done)
    assert steps(offline) == [3, 6]
    status = done.folder.status
    assert (status.state, status.end) == ("completed", "completed")
    assert status.tracking.startswith("wandb start failed: CommError: Run initialization has timed out")
    assert "recorded offline" in status.tracking
