"""Early stopping, the rising radius and mixed precision, in whole runs."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from weights import same_weights, weights

from robust_arch.attacks import PGD
from robust_arch.attacks.base import Attack
from robust_arch.evaluation import select_examples
from robust_arch.execution.execute import execute
from robust_arch.interop import load_checkpoint
from robust_arch.objectives.natural import Natural
from robust_arch.runs import metrics
from robust_arch.training.module import AdversarialTraining


@pytest.fixture
def planted(monkeypatch):
    """A function that makes the held-out robust counts of the epochs those of a list; returns the epochs trained."""
    trained = []

    def plant(counts):
        def log_planted(module):
            count = float(counts[module.current_epoch])
            module.log_dict({"val_clean_acc": 50.0, "val_robust_acc": 5 * count, "val_robust_count": count})

        def note(module):
            trained.append(module.current_epoch)

        monkeypatch.setattr(AdversarialTraining, "on_validation_epoch_end", log_planted)
        monkeypatch.setattr(AdversarialTraining, "on_train_epoch_start", note, raising=False)
        return trained

    return plant


STOPPING = ("objective=natural", "trainer.max_epochs=9", "trainer.limit_train_batches=1", "evaluate.attacks=[fgsm]",
            "evaluate.n=10")  # fmt: skip
#         0  1  2  3  4   5  6  7  8
COUNTS = [5, 9, 8, 9, 7, 10, 3, 4, 9]


@pytest.mark.parametrize(
    ("patience", "best", "last"),
    [
        (1, 1, 2),  # 8 after 9
        (3, 1, 4),  # 8, 9 and 7 are not better than 9: a tie is none
        (4, 5, 8),  # 10 comes just in time; 3, 4 and 9 are three, and then the epochs are over
        ("null", 5, 8),
    ],
)
def test_training_ends_after_so_many_epochs_without_a_better_count(patience, best, last, run, planted):
    trained = planted(COUNTS)
    done = run(*STOPPING, f"recipe.early_stopping={patience}")
    assert execute(done) == "completed"
    assert trained == list(range(last + 1))
    rows = metrics.read_rows(done.folder.metrics)
    assert [row["val_robust_count"] for row in rows] == COUNTS[: last + 1]
    assert (done.folder.result.best_epoch, done.folder.result.last_epoch) == (best, last)


def forget_the_end(done):
    """As kill -9 leaves a run between the last epoch and the result."""
    (done.folder.path / "result.json").unlink()
    status = done.folder.path / "status.json"
    status.write_text(status.read_text().replace('"completed"', '"running"'))


@pytest.mark.parametrize("patience", [3, "null"])
def test_a_run_killed_after_its_last_epoch_trains_no_further_one(patience, run, planted):
    trained = planted(COUNTS)
    overrides = (*STOPPING, f"recipe.early_stopping={patience}")
    done = run(*overrides)
    execute(done)
    before, result = done.folder.checkpoint("last").read_bytes(), done.folder.result
    rows = metrics.read_rows(done.folder.metrics)
    forget_the_end(done)
    trained.clear()
    assert execute(run(*overrides)) == "completed"
    assert trained == []
    assert done.folder.checkpoint("last").read_bytes() == before
    assert metrics.read_rows(done.folder.metrics) == rows
    for key in ("best_epoch", "last_epoch", "best_val_robust_acc", "last_val_robust_acc"):
        assert getattr(done.folder.result, key) == getattr(result, key)


@pytest.mark.parametrize("killed_at", [1, 4])
def test_a_run_killed_on_the_way_stops_at_the_same_epoch(killed_at, run, planted, interrupt):
    trained = planted(COUNTS)
    overrides = (*STOPPING, "recipe.early_stopping=3")
    whole, cut = run(*overrides, "study.name=whole"), run(*overrides, "study.name=cut")
    execute(whole)
    trained.clear()
    interrupt(cut, killed_at)
    assert execute(cut) == "completed"
    assert trained == [*range(killed_at + 1), *range(killed_at, 5)]
    assert (cut.folder.result.best_epoch, cut.folder.result.last_epoch) == (1, 4)
    assert same_weights(weights(whole), weights(cut))


seen = []


@dataclass(frozen=True, kw_only=True)
class Noting(Natural):
    """Natural training that notes the threat model of each step."""

    def __call__(self, net, x, y, threat, seed, index):
        seen.append(str(threat))
        return super().__call__(net, x, y, threat, seed, index)


def test_the_rising_radius_reaches_the_objective_and_nothing_else(run, monkeypatch):
    seen.clear()
    attacked = []
    real = Attack.__call__

    def spy(attack, net, x, y, threat, **kwargs):
        attacked.append(str(threat))
        return real(attack, net, x, y, threat, **kwargs)

    monkeypatch.setattr(Attack, "__call__", spy)
    done = run(
        f"objective._target_={__name__}.Noting", "~objective.attack", "recipe.eps_warmup=3", "trainer.max_epochs=5",
        "threat.eps=8/255",
    )  # fmt: skip
    assert execute(done) == "completed", done.folder.status.error
    # 3 steps an epoch; 8/255 in quarters
    expected = ["linf-2/255", "linf-4/255", "linf-6/255", "linf-8/255", "linf-8/255"]
    assert seen == [threat for threat in expected for _ in range(3)]
    # held-out and final robustness are measured under the whole radius throughout
    assert len(attacked) >= 5
    assert set(attacked) == {"linf-8/255"}
    (record, *_) = [json.loads(path.read_text()) for path in done.folder.evaluations.glob("*.json")]
    assert record["eps"] == "8/255"


def test_a_resumed_run_goes_on_with_the_radius_of_its_epoch(run, interrupt):
    seen.clear()
    overrides = (f"objective._target_={__name__}.Noting", "~objective.attack", "recipe.eps_warmup=3",
                 "trainer.max_epochs=4", "trainer.limit_train_batches=1", "threat.eps=8/255")  # fmt: skip
    interrupt(run(*overrides), 2)
    assert seen == ["linf-2/255", "linf-4/255"]
    assert execute(run(*overrides)) == "completed"
    assert seen == ["linf-2/255", "linf-4/255", "linf-6/255", "linf-8/255"]


def lipschitz(net, x, x_adv, *, autocast=False):
    """Mean of ||f(x) - f(x')||_1 / ||x - x'||_inf."""
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        change = (net(x_adv).double() - net(x).double()).abs().sum(dim=1)
    return float((change / (x_adv.double() - x.double()).flatten(1).abs().amax(dim=1)).mean())


BF16 = ("trainer.precision=bf16-mixed", "trainer.max_epochs=1")


@pytest.fixture
def spied(monkeypatch):
    """Every call of an attack: whether autocast was on, the dtype of the logits there, images in and out."""
    calls = []
    real = PGD.__call__

    def spy(attack, net, x, y, threat, **kwargs):
        x_adv = real(attack, net, x, y, threat, **kwargs)
        with torch.no_grad():
            logits = net.eval()(x) if not net.training else None
        calls.append(
            {
                "steps": attack.steps,
                "training": net.training,
                "autocast": torch.is_autocast_enabled("cpu"),
                "logits": None if logits is None else logits.dtype,
                "x": x.detach().clone(),
                "x_adv": x_adv.detach().clone(),
                "eps": threat.eps,
            }
        )
        return x_adv

    monkeypatch.setattr(PGD, "__call__", spy)
    return calls


def by_hand(run):
    """The last network, clean images, and who is correct and who survives one signed-gradient step, in float32."""
    net = load_checkpoint(run.folder.checkpoint("last")).net
    examples = select_examples(run.splits.test, 40)
    x, y = examples.images.images.float() / 16, examples.images.labels
    x.requires_grad_(True)
    logits = net(x)
    (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, y), x)
    with torch.no_grad():
        x_adv = (x + 0.2 * gradient.sign()).clamp(0, 1)
        clean = logits.argmax(1) == y
        return net, x.detach(), clean, clean & (net(x_adv).argmax(1) == y)


@pytest.mark.parametrize("objective", ["sat", "mart"])
def test_mixed_precision_stays_inside_training(objective, run, spied):
    done = run(*BF16, f"objective={objective}")
    assert execute(done) == "completed", done.folder.status.error

    in_training = [call for call in spied if call["training"]]
    in_evaluation = [call for call in spied if not call["training"] and not call["autocast"]]
    in_validation = [call for call in spied if not call["training"] and call["autocast"]]
    assert len(in_training) == 3
    assert in_validation
    assert len(in_evaluation) == 2  # fgsm and pgd20 of the one epoch, which is best and last
    assert all(call["autocast"] for call in in_training)
    for call in spied:
        assert call["x"].dtype == call["x_adv"].dtype == torch.float32
        offset = call["x_adv"].double() - call["x"].double()
        assert float(offset.abs().max()) <= call["eps"]
        # the perturbation was never rounded to bfloat16's 8 bits: most of its values are none of those
        moved = call["x_adv"][offset != 0]
        assert (moved != moved.bfloat16().float()).float().mean() > 0.5
    assert {call["logits"] for call in in_validation} == {torch.bfloat16}  # mixed precision was on at all
    assert {call["logits"] for call in in_evaluation} == {torch.float32}

    checkpoint = torch.load(done.folder.checkpoint("last"), weights_only=True)
    floating = [value.dtype for value in checkpoint["state_dict"].values() if value.is_floating_point()]
    assert set(floating) == {torch.float32}

    records = [json.loads(path.read_text()) for path in done.folder.evaluations.glob("*.json")]
    assert {record["checkpoint"] for record in records} == {"best", "last"}
    assert {record["precision"] for record in records} == {"float32"}
    net, x, clean, robust = by_hand(done)
    for record in records:
        assert (record["clean"]["count"], record["attacks"]["fgsm"]["count"]) == (int(clean.sum()), int(robust.sum()))
    for path in done.folder.evaluations.glob("*.npz"):
        with np.load(path) as arrays:
            np.testing.assert_array_equal(arrays["clean"], clean)
            np.testing.assert_array_equal(arrays["fgsm"], robust)

    # counts of 40 could agree by chance; the Lipschitz constant, measured on pgd20's images, shows the precision
    (x_adv,) = [call["x_adv"] for call in in_evaluation if call["steps"] == 20]
    exact, rough = lipschitz(net, x, x_adv), lipschitz(net, x, x_adv, autocast=True)
    measured = records[0]["lipschitz"]["mean"]
    assert measured == pytest.approx(exact, rel=1e-5)
    assert abs(rough / exact - 1) > 1e-4
