"""What wandb holds of a run, read back from its offline files."""

import base64
import hashlib
import io
import json
import time

import numpy as np
import pytest
import wandb
from offline_wandb import OfflineRun
from PIL import Image
from scipy.stats import binomtest
from typer.testing import CliRunner

from robust_arch.cli import app
from robust_arch.configuration.settings import read_settings
from robust_arch.execution.execute import execute
from robust_arch.execution.run import Run
from robust_arch.runs import metrics

QUICK = ("evaluate.attacks=[fgsm]", "evaluate.n=20", "trainer.limit_train_batches=1")


@pytest.fixture(autouse=True)
def staged_here(monkeypatch, tmp_path):
    """Files of artifacts wait for an upload in the test's folder, not in the user's."""
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staged"))


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


def interrupt_after(epoch, run, monkeypatch):
    """Executes a run whose process is interrupted once this epoch is in metrics.csv, and not yet in a checkpoint."""
    real_append = metrics.append_row

    def append(path, row):
        real_append(path, row)
        if row["epoch"] == epoch:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(metrics, "append_row", append)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            execute(run)


def test_after_a_resume_the_newest_run_is_complete_in_itself(run, monkeypatch):
    done = run("trainer.max_epochs=4")
    interrupt_after(2, done, monkeypatch)
    assert execute(done) == "completed"
    (offline,) = offline_runs(done)  # the interrupted one is set aside, so that syncing all uploads each run once
    assert steps(offline) == [3, 6, 9, 12]
    assert [row["epoch"] for row in offline.history] == [0, 1, 2, 3]
    assert offline.x_axis == "epoch"
    assert len(list((done.folder.path / "wandb").glob("superseded-run-*"))) == 1


def with_times(text, times):
    """metrics.csv with other times in its first rows."""
    header, *rows = text.splitlines()
    assert header.endswith(",time")
    changed = [f"{row.rpartition(',')[0]},{at}" for row, at in zip(rows, times, strict=False)]
    return "".join(f"{line}\r\n" for line in (header, *changed, *rows[len(times) :]))


def test_rows_have_the_times_at_which_their_epochs_ended(run, monkeypatch):
    overrides = ("trainer.max_epochs=3", "trainer.limit_train_batches=1", "evaluate.n=20")
    done = run(*overrides)
    interrupt_after(2, done, monkeypatch)
    planted = [1e9, 1e9 + 60]
    done.folder.metrics.write_text(with_times(done.folder.metrics.read_text(), planted))
    begun = time.time()
    assert execute(run(*overrides, "evaluate.attacks=[fgsm]")) == "completed"
    (offline,) = offline_runs(done)
    times = [row["_timestamp"] for row in offline.history]
    assert times[:2] == planted
    assert begun - 0.001 <= times[2] <= time.time()
    # an attack that is added opens a new wandb run, which has the same history
    assert execute(run(*overrides, "evaluate.attacks=[pgd20]")) == "completed"
    (offline,) = offline_runs(done)
    assert [row["_timestamp"] for row in offline.history] == times


@pytest.mark.slow
def test_rows_of_an_earlier_version_get_the_present_time(run):
    done = run(*QUICK)
    execute(done)
    lines = done.folder.metrics.read_text().splitlines()
    done.folder.metrics.write_text("".join(f"{line.rpartition(',')[0]}\r\n" for line in lines))
    begun = time.time()
    assert execute(run(*QUICK, "evaluate.n=30")) == "completed"
    (offline,) = offline_runs(done)
    assert all(begun <= row["_timestamp"] for row in offline.history)


def test_an_added_attack_leaves_configuration_command_and_commit_of_the_training(run):
    done = run(*QUICK)
    execute(done)
    (first,) = offline_runs(done)
    execute(run(*QUICK, "evaluate.attacks=[pgd20]", "evaluate.n=30"))
    (second,) = offline_runs(done)
    for offline in (first, second):
        evaluated = offline.config["evaluate"]
        assert (evaluated["attacks"], evaluated["n"], evaluated["batch_size"]) == (["fgsm"], 20, 250)
        result = done.folder.result
        assert (offline.config["commit"], offline.config["command"]) == (result.commit, result.command)
    assert {"best-n20/fgsm_acc", "best-n30/pgd20_acc"} <= set(second.summary)


def test_the_summary_has_the_ends_of_each_interval(run):
    done = run()
    execute(done)
    (offline,) = offline_runs(done)
    for record in done.folder.evaluation_records():
        shares = {"clean_acc": record.clean, "worst_case_acc": record.worst_case, "stability": record.stability}
        shares |= {f"{name}_acc": attack for name, attack in record.attacks.items()}
        assert len(shares) == 5
        for name, share in shares.items():
            expected = binomtest(share.count, share.n).proportion_ci(method="wilson")
            ends = [offline.summary[f"{record.checkpoint}-n40/{name}_{end}"] for end in ("low", "high")]
            assert ends == pytest.approx([100 * expected.low, 100 * expected.high], abs=1e-6)


def test_attacked_images_are_a_table_on_request(run):
    done = run("logger.images=3", "evaluate.save_images=true", "trainer.max_epochs=1", "evaluate.n=20")
    execute(done)
    (offline,) = offline_runs(done)
    files = offline.artifacts["run_table"]
    table = json.loads(files["attacked_images.table.json"].read_text())
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert len(rows) == 2 * 2 * 3  # best and last, two attacks, three images
    assert {(row["checkpoint"], row["attack"]) for row in rows} == {
        (checkpoint, attack) for checkpoint in ("best", "last") for attack in ("fgsm", "pgd20")
    }
    test, eps = done.splits.test, done.settings.threat.eps
    records = {record.checkpoint: record for record in done.folder.evaluation_records()}
    for row in rows:

        def pixels(column, row=row):
            return np.asarray(Image.open(io.BytesIO(files[row[column]["path"]].read_bytes())).convert("L")).astype(
                float
            )

        levels = test.to_unit(test.images[row["image"]])[0].numpy() * 255
        assert np.abs(pixels("clean") - levels).max() <= 0.5
        assert np.abs(pixels("attacked") - levels).max() <= 255 * eps + 0.51
        assert np.abs(pixels("difference") - 127.5).max() > 120
        assert row["label"] == int(test.labels[row["image"]])
        with np.load(done.folder.evaluations / f"{records[row['checkpoint']].eval_id}.npz") as arrays:
            assert row["correct"] == arrays[row["attack"]][list(arrays["index"]).index(row["image"])]


def test_the_report_is_an_artifact_with_its_figures(run):
    done = run(*QUICK, "study.name=mine", "logger.project=ours")
    execute(done)
    study = done.study.path
    result = CliRunner().invoke(app, ["report", str(study), "--wandb", "offline"])
    assert result.exit_code == 0, result.output
    (folder,) = (study / "wandb").glob("offline-run-*")
    assert f"wandb: {folder.resolve()}" in result.output
    for _ in range(100):  # on a busy machine wandb's own process may write its file's end after finish has returned
        if (offline := OfflineRun(folder)).exit_code is not None:
            break
        time.sleep(0.1)
    assert (offline.job_type, offline.group, offline.name) == ("report", "mine", "mine report")
    report = {path.name: path for folder in ("report", "figures") for path in (study / folder).iterdir()}
    assert set(offline.artifacts["report"]) == set(report)
    assert {"index.html", "training_curves.png", "training_curves.svg"} <= set(report)
    for name, path in report.items():
        assert offline.digests[name] == base64.b64encode(hashlib.md5(path.read_bytes()).digest()).decode()
    assert any(key.startswith("training_curves") for key in offline.history[0])


def test_a_report_that_cannot_be_logged_is_one_error(run):
    done = run(*QUICK, "logger=csv", "trainer.max_epochs=1")
    execute(done)
    messages = {
        ("--wandb", "on"): "--wandb = 'on': expected offline or online",
        ("--project", "ours"): "--project = 'ours': expected --wandb beside it",
        ("--wandb", "offline"): "these were not (logger=csv)",
    }
    for options, message in messages.items():
        assert not (done.study.path / "report").exists()  # options are checked before any work
        result = CliRunner().invoke(app, ["report", str(done.study.path), *options])
        assert result.exit_code == 1
        assert result.output.count("error: ") == 1
        assert message in result.output
    assert not (done.study.path / "wandb").exists()


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
