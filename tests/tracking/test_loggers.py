"""Lightning's loggers and callbacks, named by `_target_`, in whole runs."""

import csv
import sys

import pytest
import torch
import yaml
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger
from weights import same_weights, weights

from robust_arch.configuration.settings import read_settings
from robust_arch.errors import InputError
from robust_arch.execution.evaluate_checkpoint import evaluate
from robust_arch.execution.execute import execute
from robust_arch.execution.run import Run
from robust_arch.runs import metrics

CSV = "_target_:pytorch_lightning.loggers.CSVLogger,save_dir:'{run_dir}',version:''"
STOP = "_target_:pytorch_lightning.callbacks.EarlyStopping,monitor:val_planted,patience:1,mode:max"


@pytest.fixture
def run(composed):
    """A function from overrides to a loaded run."""
    return lambda *overrides: Run.load(read_settings(composed(*overrides)))


UNATTACKED = ("evaluate.attacks=[fgsm]", "evaluate.n=10", "trainer.limit_train_batches=1")


MADE = []  # the loggers of a test


class Notes(Logger):
    """Keeps what it is told."""

    def __init__(self, label, fails=""):
        super().__init__()
        self.name, self.version, self.fails = label, "", fails
        self.calls = []
        MADE.append(self)

    def _note(self, what, *content):
        self.calls.append((what, *content))
        if what == self.fails:
            raise OSError("the server is gone")

    def log_hyperparams(self, params):
        self._note("config", params)

    def log_metrics(self, metrics, step=None):
        self._note("metrics", step, dict(metrics))

    def finalize(self, status):
        self._note("finalize", status)

    name = version = None


@pytest.fixture(autouse=True)
def forgotten():
    MADE.clear()


def notes(name, **settings):
    text = ",".join(f"{key}:{value!r}" for key, value in {"label": name, **settings}.items())
    return f"+logger.{name}={{_target_:{__name__}.Notes,{text}}}"


def cells(path):
    with path.open() as handle:
        return list(csv.DictReader(handle))


def test_several_loggers_get_the_rows_and_the_final_numbers(run):
    done = run(
        "logger=csv", notes("first"), f"+logger.second={{{CSV},name:two}}", f"+logger.third={{{CSV},name:three}}"
    )
    assert execute(done) == "completed"
    (first,) = MADE
    (config,) = (call[1] for call in first.calls if call[0] == "config")
    assert config["arch"]["widths"] == [4, 8, 8]
    *epochs, final = ((step, numbers) for what, step, numbers in (c for c in first.calls if c[0] == "metrics"))
    recorded = metrics.read_rows(done.folder.metrics)
    assert [step for step, _ in epochs] == [row["step"] for row in recorded] == [3, 6]
    for (_, numbers), row in zip(epochs, recorded, strict=True):
        assert numbers == {key: value for key, value in row.items() if key not in ("step", "time")}
    (best,) = (record for record in done.folder.evaluation_records() if record.checkpoint == "best")
    assert (final[0], final[1]["best-n40/pgd20_acc"]) == (6, best.attacks["pgd20"].percent)
    assert first.calls[-1] == ("finalize", "success")
    for name in ("two", "three"):
        rows = cells(done.folder.path / name / "metrics.csv")
        assert [float(row["val_clean_acc"]) for row in rows if row["val_clean_acc"]] == [
            row["val_clean_acc"] for row in recorded
        ]


def test_tensorboard_event_files_hold_the_curves(run):
    pytest.importorskip("tensorboard", reason="needs the package tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    done = run("logger=[csv,tensorboard]")
    assert execute(done) == "completed"
    events = EventAccumulator(str(done.folder.path / "tensorboard")).Reload()
    rows = metrics.read_rows(done.folder.metrics)
    assert [(each.step, each.value) for each in events.Scalars("val_clean_acc")] == [
        (row["step"], pytest.approx(row["val_clean_acc"])) for row in rows
    ]
    (best,) = (record for record in done.folder.evaluation_records() if record.checkpoint == "best")
    assert events.Scalars("best-n40/clean_acc")[0].value == pytest.approx(best.clean.percent)


@pytest.mark.parametrize("choice", ["[wandb,csv]", "[csv,wandb]", "wandb", "[mlflow,wandb,tensorboard]"])
def test_the_order_of_loggers_does_not_matter(choice, composed):
    logger = read_settings(composed(f"logger={choice}")).logger
    assert (logger["name"], logger["mode"], logger["project"]) == ("wandb", "offline", "robust-arch")


def test_other_loggers_alone_leave_metrics_csv(composed):
    settings = read_settings(composed("logger=[tensorboard,mlflow]"))
    assert settings.logger == {"name": "csv"}
    assert list(settings.loggers) == ["tensorboard", "mlflow"]


def test_loggers_that_fail_never_stop_the_run(run, caplog):
    parts = {"config": "start", "metrics": "log", "finalize": "finish"}
    shaky = [notes(fails, fails=fails) for fails in parts]
    done = run("logger=csv", *shaky, notes("steady"), "trainer.max_epochs=1", *UNATTACKED)
    assert execute(done) == "completed"
    problems = [f"logger.{name} {part} failed: OSError: the server is gone" for name, part in parts.items()]
    assert done.folder.status.tracking == "; ".join(problems)
    assert all(problem in caplog.text for problem in problems)
    *failing, steady = MADE
    for logger in failing:
        assert [call[0] for call in logger.calls][-1] == logger.fails  # it is not called again
    assert [call[0] for call in steady.calls] == ["config", "metrics", "metrics", "finalize"]


def test_a_failed_run_is_told_to_the_loggers(run, monkeypatch):
    done = run("logger=csv", notes("one"), *UNATTACKED)
    monkeypatch.setattr("robust_arch.training.fit.fit", lambda *args, **kwargs: 1 / 0)
    assert execute(done) == "failed"
    assert MADE[0].calls[-1] == ("finalize", "failed")


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ("_target_:nowhere.Logger", "logger.own._target_ = 'nowhere.Logger'"),
        ("_target_:collections.Counter", "logger.own._target_ = 'collections.Counter': expected a logger"),
        ("save_dir:x", "logger.own = .* expected a group of keys with a _target_"),
        (f"{CSV},nam:x", "logger.own.nam: unknown key; did you mean name"),
        (f"{CSV},flush_logs_every_n_steps:often", "logger.own.flush_logs_every_n_steps = 'often': expected an integer"),
        (f"_target_:{__name__}.refusing", "logger.own: cannot be built.* no such project"),
    ],
)
def test_a_logger_that_cannot_be_built_is_one_error_and_leaves_nothing(group, message, run, tmp_path):
    with pytest.raises(InputError, match=message):
        execute(run("logger=csv", f"+logger.own={{{group}}}"))
    assert not (tmp_path / "results").exists()


def refusing():
    raise RuntimeError("no such project")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.callbacks=3"], "trainer.callbacks = 3: expected"),
        (["trainer.callbacks=[{_target_:collections.Counter}]"], "trainer.callbacks = 'Counter': expected a callback"),
        (["trainer.callbacks=[{_target_:nowhere.Callback}]"], r"trainer.callbacks\[0\]._target_ = 'nowhere.Callback'"),
        (["trainer.callbacks={a:{_target_:pytorch_lightning.callbacks.Timer,x:1}}"], "trainer.callbacks.a.x: unknown"),
        (["logger=wandb", "logger.images=3"], "logger.images = 3: expected null, or evaluate.save_images=true"),
        (["logger=wandb", "logger.images=0"], "logger.images = 0: expected an integer of at least 1"),
        (["logger=csv", "+logger.images=3"], "logger.images: unknown key"),
        (["logger=csv", "~logger.name"], "logger.name = None: expected wandb or csv"),
    ],
)
def test_bad_settings_are_refused_before_any_work(overrides, message, composed):
    with pytest.raises(InputError, match=message):
        read_settings(composed(*overrides))


class Counting(Callback):
    """Counts epochs, across resumed attempts, and logs the count."""

    def __init__(self, start=0):
        self.count = start

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state_dict):
        self.count = state_dict["count"]

    def on_train_epoch_end(self, trainer, pl_module):
        self.count += 1
        pl_module.log("count", float(self.count))
        if trainer.logger is not None:
            trainer.logger.log_metrics({"from_callback": self.count}, step=trainer.global_step)


COUNTING = f"{{_target_:{__name__}.Counting}}"


def test_a_callback_logs_to_metrics_csv_and_to_the_loggers(run):
    done = run("logger=csv", notes("one"), f"trainer.callbacks={{mine:{COUNTING}}}", *UNATTACKED)
    assert execute(done) == "completed"
    assert [row["count"] for row in metrics.read_rows(done.folder.metrics)] == [1, 2]
    told = [call[2] for call in MADE[0].calls if call[0] == "metrics"]
    assert [each["from_callback"] for each in told if "from_callback" in each] == [1, 2]


def test_a_callback_goes_on_where_the_interrupted_attempt_stopped(run, monkeypatch):
    done = run("trainer.max_epochs=4", f"trainer.callbacks=[{COUNTING}]", *UNATTACKED)
    real = metrics.append_row

    def die_in_the_third(path, row):
        real(path, row)
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(metrics, "append_row", die_in_the_third)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            execute(done)
    assert execute(done) == "completed"  # the same run, whose callbacks have counted already
    assert [row["count"] for row in metrics.read_rows(done.folder.metrics)] == [1, 2, 3, 4]


class Planted(Callback):
    """Logs 1, 3, 2, 0, ... as `val_planted`."""

    def on_validation_end(self, trainer, pl_module):
        trainer.callback_metrics["val_planted"] = torch.tensor([1.0, 3.0, 2.0, 0.0, 9.0][trainer.current_epoch])


def test_early_stopping_of_lightning_ends_the_training(run):
    done = run("trainer.max_epochs=5", f"trainer.callbacks=[{{_target_:{__name__}.Planted}},{{{STOP}}}]", *UNATTACKED)
    assert execute(done) == "completed"
    assert done.folder.result.last_epoch == 2  # 2 after 3


def test_a_checkpoint_callback_saves_beside_ours(run):
    keep = "_target_:pytorch_lightning.callbacks.ModelCheckpoint,filename:'kept-{epoch}',save_top_k:-1"
    done = run(f"trainer.callbacks=[{{{keep}}}]", *UNATTACKED)
    assert execute(done) == "completed"
    names = {path.name for path in done.folder.checkpoints.iterdir()}
    assert names == {"best.ckpt", "last.ckpt", "kept-epoch=0.ckpt", "kept-epoch=1.ckpt"}


def test_a_callback_that_only_looks_and_loggers_change_no_weight(run):
    plain, watched = run(*UNATTACKED), run(notes("one"), f"trainer.callbacks=[{COUNTING}]", *UNATTACKED)
    for each in (plain, watched):
        assert execute(each) == "completed"
    assert same_weights(weights(plain), weights(watched))


def test_loggers_leave_the_run_id_and_callbacks_are_a_part_of_it(run):
    plain = run().run_id
    assert run("trainer.callbacks=null").run_id == run("trainer.callbacks=[]").run_id == plain
    assert run("logger=[csv,tensorboard]", notes("one")).run_id == plain
    listed = run(f"trainer.callbacks=[{COUNTING}]").run_id
    named = run(f"trainer.callbacks={{mine:{COUNTING}}}").run_id
    other = run(f"trainer.callbacks=[{{_target_:{__name__}.Counting,start:1}}]").run_id
    assert listed == named  # names are labels
    assert len({plain, listed, other}) == 3


def test_nothing_that_records_name_is_imported(run, composed, tmp_path, monkeypatch):
    """A checkpoint and a config.yaml name a logger and a callback whose module leaves a trace when it is imported."""
    trace = tmp_path / "imported"
    (tmp_path / "hostile.py").write_text(f"open({str(trace)!r}, 'w').close()\nclass Both: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    done = run(*UNATTACKED)
    assert execute(done) == "completed"
    path = done.folder.checkpoint("last")
    content = torch.load(path, weights_only=True)
    hostile = {"_target_": "hostile.Both"}
    content["card"]["config"]["logger"] = {"own": hostile}
    content["card"]["config"]["trainer"]["callbacks"] = [hostile]
    torch.save(content, path)
    config = done.folder.recorded_config
    config["logger"], config["trainer"]["callbacks"] = {"own": hostile}, [hostile]
    done.folder.config.write_text(yaml.safe_dump(config))
    evaluate(composed(f"checkpoint={path}", "evaluate.attacks=[fgsm]", "evaluate.n=30", config="evaluate", small=False))
    assert execute(run(*UNATTACKED, "evaluate.n=11", notes("one"))) == "completed"  # told the recorded configuration
    assert MADE[0].calls[0][1]["trainer"]["callbacks"] == [hostile]
    assert not trace.exists()
    assert "hostile" not in sys.modules
