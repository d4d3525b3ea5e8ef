"""A signal in the middle of an epoch: what is saved, and that the same command ends where it would have ended."""

import csv
import signal

import pytest
import torch
from commands import SMALL
from composition import configuration

from robust_arch.common.process import exit_now
from robust_arch.configuration.settings import read_settings
from robust_arch.execution.execute import execute
from robust_arch.execution.run import Run
from robust_arch.training.module import AdversarialTraining

STEPS = 4
OPTIONS = (
    *SMALL, f"trainer.limit_train_batches={STEPS}", "arch.dropout=0.3", "objective=trades", "recipe/averaging=ema",
    "recipe.awp.gamma=0.01",
)  # fmt: skip


def loaded(folder):
    """A run of two epochs of four steps, with dropout, averaged weights and weight perturbation."""
    return Run.load(read_settings(configuration(folder, *OPTIONS)))


@pytest.fixture
def cut(tmp_path):
    """The run that receives a signal."""
    return loaded(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The same run, undisturbed."""
    done = loaded(tmp_path_factory.mktemp("whole"))
    assert execute(done) == "completed"
    return done


def raise_at(monkeypatch, step, signum):
    """Let the process receive a signal while it takes this step, once."""
    take = AdversarialTraining.training_step
    sent = []

    def taken(self, batch, batch_idx):
        if self.global_step == step and not sent:
            sent.append(step)
            signal.raise_signal(signum)
        return take(self, batch, batch_idx)

    monkeypatch.setattr(AdversarialTraining, "training_step", taken)


@pytest.fixture
def handler():
    """A function that sets a signal's handler until the test is over."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)}
    yield signal.signal
    for number, previous in before.items():
        signal.signal(number, previous)


def rows(run):
    """The texts of metrics.csv but for the times."""
    with run.folder.metrics.open(newline="") as handle:
        return [{**row, "seconds": None, "time": None} for row in csv.DictReader(handle)]


def saved_step(run):
    names = [path.name for path in run.folder.checkpoints.glob("*.ckpt")]
    name = "interrupted" if "interrupted.ckpt" in names else "last"
    return torch.load(run.folder.checkpoint(name), weights_only=True)["global_step"]


def counts(run):
    return [
        (record.clean.count, {name: attack.count for name, attack in record.attacks.items()})
        for record in run.folder.evaluation_records()
    ]


def assert_same(first, second):
    for which in ("best", "last"):
        one, other = (torch.load(run.folder.checkpoint(which), weights_only=True) for run in (first, second))
        assert all(torch.equal(one["state_dict"][key], other["state_dict"][key]) for key in one["state_dict"])
        assert one["callbacks"]["BestAndLast"] == other["callbacks"]["BestAndLast"]
    assert rows(first) == rows(second)
    assert counts(first) == counts(second)


@pytest.mark.parametrize("step", [0, 2, STEPS - 1, STEPS + 1])
def test_it_ends_the_batch_saves_and_goes_on_from_there(cut, whole, monkeypatch, handler, step):
    handler(signal.SIGTERM, exit_now)
    with monkeypatch.context() as patch:
        raise_at(patch, step, signal.SIGTERM)
        with pytest.raises(SystemExit) as stopped:
            execute(cut)
    assert stopped.value.code == 143
    assert cut.folder.state == "planned"
    assert saved_step(cut) == step + 1
    assert signal.getsignal(signal.SIGTERM) is exit_now
    assert execute(cut) == "completed"
    assert {path.name for path in cut.folder.checkpoints.iterdir()} == {"best.ckpt", "last.ckpt"}
    assert_same(whole, cut)


def test_a_scheduler_that_only_warns_lets_it_go_on(cut, whole, monkeypatch, handler):
    heard = []
    handler(signal.SIGUSR2, lambda number, frame: heard.append(number))
    raise_at(monkeypatch, 1, signal.SIGUSR2)
    assert execute(cut) == "completed"
    assert heard == [signal.SIGUSR2]
    assert_same(whole, cut)


def test_a_torn_or_stale_checkpoint_of_half_an_epoch_is_not_used(cut, whole, monkeypatch, handler):
    handler(signal.SIGTERM, exit_now)
    with monkeypatch.context() as patch:
        raise_at(patch, 1, signal.SIGTERM)
        with pytest.raises(SystemExit):
            execute(cut)
    path = cut.folder.checkpoint("interrupted")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert execute(cut) == "completed"
    assert_same(whole, cut)
    (cut.folder.path / "result.json").unlink()
    path.write_bytes(content)  # of the first epoch, where the second is over
    assert execute(cut) == "completed"
    assert_same(whole, cut)
