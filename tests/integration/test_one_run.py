"""One run from configuration to records."""

import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from commands import SMALL
from composition import configuration
from weights import same_weights, weights

from robust_arch.configuration.settings import read_settings
from robust_arch.data.images import stratified
from robust_arch.execution.choices import trained_threads
from robust_arch.execution.execute import execute
from robust_arch.execution.run import Run
from robust_arch.interop import load_checkpoint
from robust_arch.runs import load_study, metrics


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The results folder after the run without further overrides."""
    folder = tmp_path_factory.mktemp("trained")
    assert execute(Run.load(read_settings(configuration(folder, *SMALL)))) == "completed"
    return folder / "results"


@pytest.fixture
def done(run, trained, tmp_path):
    """A copy of that run."""
    shutil.copytree(trained, tmp_path / "results")
    return run()


def forbid_training(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr("robust_arch.training.fit.fit", refuse)


def test_a_run_leaves_the_files_of_the_contract(done):
    folder = done.folder
    names = {path.name for path in folder.path.iterdir()} - {".lock"}
    assert names == {
        "config.yaml", "status.json", "result.json", "metrics.csv", "train.log", "checkpoints", "evaluations",
    }  # fmt: skip
    assert {path.name for path in folder.checkpoints.iterdir()} == {"best.ckpt", "last.ckpt"}
    assert [row["epoch"] for row in metrics.read_rows(folder.metrics)] == [0, 1]
    config = yaml.safe_load(folder.config.read_text())
    assert config["arch"]["widths"] == [4, 8, 8]
    assert config["threat"] == {"norm": "linf", "eps": 0.2}
    assert (
        folder.result.cost.params
        == sum(
            weight.numel()
            for name, weight in weights(done).items()
            if "running" not in name and "num_batches" not in name
        )
        - 2
    )  # mean and std of the identity normalisation are no parameters


def test_clean_accuracy_in_the_table_is_that_of_the_checkpoint(run, tmp_path):
    done = run("evaluate.n=null")
    execute(done)
    from sklearn.datasets import load_digits

    raw = load_digits()
    labels = torch.from_numpy(raw.target).long()
    test = stratified(labels, 360, seed=0)
    images = torch.from_numpy(raw.images[test.numpy()]).float()[:, None] / 16
    net = load_checkpoint(done.folder.checkpoint("best")).net
    with torch.no_grad():
        right = (net(images).argmax(1) == labels[test]).float().mean()
    frame = load_study(tmp_path / "results" / "single")
    (row,) = frame[frame["checkpoint"] == "best"].to_dict("records")
    assert row["n_test"] == 360
    assert row["clean_acc"] == pytest.approx(100 * float(right))
    assert row["worst_case_acc"] <= min(row["fgsm_acc"], row["pgd20_acc"]) <= row["clean_acc"]
    assert np.isnan(row["autoattack_acc"])


def test_a_configuration_determines_the_weights_and_another_seed_gives_others(run, done):
    torch.rand(7)  # the global random state plays no part
    same, other = run("study.name=again"), run("seed=1")
    for each in (same, other):
        execute(each)
    assert same.run_id == done.run_id
    assert same_weights(weights(done), weights(same))
    assert not same_weights(weights(done), weights(other))


def test_a_done_run_is_skipped(run, done, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in done.folder.path.rglob("*") if path.is_file()}
    forbid_training(monkeypatch)
    assert execute(run()) == "completed"
    assert before == {path: path.stat().st_mtime_ns for path in done.folder.path.rglob("*") if path.is_file()}


def test_a_run_killed_before_its_last_word_is_completed(run, done, monkeypatch):
    path = done.folder.path / "status.json"
    path.write_text(path.read_text().replace('"completed"', '"running"'))  # as kill -9 leaves it
    forbid_training(monkeypatch)
    assert done.folder.state == "planned"
    assert execute(run()) == "completed"
    assert done.folder.state == "completed"


def test_an_attack_added_later_is_evaluated_without_training(run, monkeypatch, tmp_path):
    first = run("evaluate.attacks=[fgsm]")
    execute(first)
    config, threads = first.folder.config.read_bytes(), []
    forbid_training(monkeypatch)
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    assert execute(run("evaluate.attacks=[pgd20]", "trainer.threads=null")) == "completed"
    # configuration, attempts and CPU threads are those of the training
    assert (first.folder.config.read_bytes(), first.folder.status.attempts, set(threads)) == (config, 1, {1})
    frame = load_study(tmp_path / "results" / "single")
    assert len(frame) == 2  # best and last, each one row with both attacks
    assert frame[["fgsm_acc", "pgd20_acc"]].notna().all(axis=None)


@pytest.mark.parametrize(("asked", "expected"), [((), {1}), (("trainer.threads=2",), {2})])
def test_a_later_evaluation_has_the_threads_of_the_training(done, composed, monkeypatch, asked, expected):
    from robust_arch.evaluate import evaluate

    threads = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    given = (f"checkpoint={done.folder.checkpoint('last')}", "evaluate.attacks=[fgsm]", "evaluate.n=40", *asked)
    evaluate(composed(*given, config="evaluate", small=False))
    assert set(threads) == expected


@pytest.mark.parametrize(
    "recorded", [None, {}, 3, {"threads": "1"}, {"threads": True}, {"threads": 0}, {"threads": 10**9}]
)
def test_recorded_threads_that_do_not_fit_this_machine_are_left_out(recorded):
    assert trained_threads(recorded) is None


def test_rerun_forces(run, done):
    stamp = done.folder.checkpoint("last").stat().st_mtime_ns
    assert execute(run("rerun=true")) == "completed"
    assert done.folder.checkpoint("last").stat().st_mtime_ns > stamp


def test_a_diverged_run_is_recorded_and_not_tried_again(run, monkeypatch, tmp_path):
    overrides = ("recipe.optimizer.lr=1e30", "recipe.gradient_clip=null", "evaluate.attacks=[fgsm]")
    done = run(*overrides)
    assert execute(done) == "diverged"
    assert "DivergedError" in done.folder.status.error
    (row,) = load_study(tmp_path / "results" / "single").to_dict("records")
    assert row["status"] == "diverged"
    assert np.isnan(row["clean_acc"])
    forbid_training(monkeypatch)
    assert execute(run(*overrides)) == "diverged"
    assert done.folder.status.attempts == 1


def test_a_network_of_nan_is_diverged_under_every_norm(run):
    done = run("recipe.optimizer.lr=1e12", "recipe.gradient_clip=null", "threat.norm=l2", "threat.eps=0.5")
    assert execute(done) == "diverged"
    assert not done.folder.checkpoints.exists() or not list(done.folder.checkpoints.iterdir())


def test_weights_of_one_epoch_share_numbers_and_lose_none(run, composed):
    first = run("trainer.max_epochs=1", "evaluate.attacks=[fgsm]")
    execute(first)
    from robust_arch.evaluate import evaluate

    evaluate(
        composed(
            f"checkpoint={first.folder.checkpoint('last')}", "evaluate.attacks=[cw40]", "evaluate.n=40",
            config="evaluate", small=False,
        )
    )  # fmt: skip
    execute(run("trainer.max_epochs=1", "evaluate.attacks=[pgd20]"))
    attacks = {record.checkpoint: set(record.attacks) for record in first.folder.evaluation_records()}
    assert attacks == {"best": {"fgsm", "pgd20"}, "last": {"fgsm", "pgd20", "cw40"}}


def test_a_failed_run_is_recorded_with_its_traceback_and_tried_again(run, monkeypatch):
    done = run()
    with monkeypatch.context() as patch:
        patch.setattr("robust_arch.training.fit.fit", lambda *args, **kwargs: 1 / 0)
        assert execute(done) == "failed"
    assert "ZeroDivisionError" in done.folder.status.error
    assert execute(done) == "completed"
    status = json.loads((done.folder.path / "status.json").read_text())
    assert (status["state"], status["attempts"], status["error"]) == ("completed", 2, None)


def test_a_run_that_another_process_holds_is_left_alone(run):
    done = run()
    with done.folder.lock():
        assert execute(done) == "running"
    assert not done.folder.checkpoints.exists()


def test_a_run_of_another_version_is_named(run, done, caplog):
    path = done.folder.path / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "package_version": "0.0.1"}))
    execute(run())
    assert f"{done.run_id}: recorded by version 0.0.1" in caplog.text


def test_identity_leaves_out_what_does_not_determine_training(run):
    same = run().run_id
    for override in ("trainer.threads=2", "study.name=x", "evaluate.n=50", "evaluate.attacks=[cw40]", "logger=wandb",
                     "trainer.accelerator=auto", "recipe.epochs=77", "threat.eps=1/5", "rerun=true"):  # fmt: skip
        assert run(override).run_id == same, override


def test_identity_holds_what_determines_training(run):
    overrides = ("seed=1", "threat.eps=0.1", "trainer.max_epochs=3", "arch.widths=[4,8,12]", "objective=natural",
                 "recipe.optimizer.lr=0.05", "recipe.augment.padding=1", "objective.attack.steps=9",
                 "data.val_fraction=0.2", "data.split_seed=1", "selection.images=21", "recipe.batch_size=16",
                 "trainer.precision=bf16-mixed", "trainer.limit_train_batches=2")  # fmt: skip
    assert len({run().run_id, *(run(override).run_id for override in overrides)}) == len(overrides) + 1


def test_a_truncated_checkpoint_counts_as_none(done):
    whole = weights(done)
    (done.folder.path / "result.json").unlink()
    last = done.folder.checkpoint("last")
    last.write_bytes(last.read_bytes()[:1000])
    assert execute(done) == "completed"
    assert same_weights(whole, weights(done))
