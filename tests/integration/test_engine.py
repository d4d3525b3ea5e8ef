"""The engine inside runs: what it decides is recorded and kept, what it computes is what the plain path computes."""

import logging

import pytest
import torch
import yaml
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from weights import same_weights, weights

from robust_arch.configuration.settings import read_settings
from robust_arch.data.images import stratified
from robust_arch.errors import InputError
from robust_arch.execution import choices
from robust_arch.execution.choices import with_choices
from robust_arch.execution.execute import execute
from robust_arch.interop import load_checkpoint
from robust_arch.runs import metrics
from robust_arch.study.plan import plan_study
from robust_arch.training.module import AdversarialTraining

HALF = "trainer.precision=bf16-mixed"


def recorded_trainer(run):
    return yaml.safe_load(run.folder.config.read_text())["trainer"]


@pytest.mark.parametrize(("units", "precision"), [({"avx512_bf16": True}, "bf16-mixed"), ({}, "32")])
def test_auto_is_decided_before_the_run_has_a_name(units, precision, run, composed, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units)
    decided, said = run("trainer.precision=auto"), run(f"trainer.precision={precision}")
    assert decided.run_id == said.run_id
    (planned,) = plan_study(composed("trainer.precision=auto"), ["trainer.precision=auto"]).runs
    # whoever does the run later, on whatever hardware, is told what was decided
    assert [o for o in planned.overrides if o.startswith("trainer.precision")][-1] == f"trainer.precision={precision}"
    assert execute(decided) == "completed"
    assert str(recorded_trainer(decided)["precision"]) == precision


def test_a_run_that_goes_on_compiles_as_it_did_when_it_began(run, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(
        "robust_arch.execution.choices.decide_compile", lambda device, steps, half: (steps == 6 and not half, "planned")
    )
    begun = run()
    assert with_choices(begun, begun.folder).settings.trainer.compile is True  # 2 epochs of 3 steps
    monkeypatch.setattr(choices, "decide_compile", lambda device, steps, half: (False, "planned"))
    assert execute(begun) == "completed"
    assert recorded_trainer(begun)["compile"] is False
    monkeypatch.setattr(
        "robust_arch.execution.choices.decide_compile", lambda device, steps, half: (True, "another machine")
    )
    assert with_choices(begun, begun.folder).settings.trainer.compile is False
    for asked, kept in (("true", True), ("step", "step")):
        assert with_choices(run(f"trainer.compile={asked}"), begun.folder).settings.trainer.compile == kept
    assert "trainer.compile=auto: false (planned)" in begun.folder.log.read_text()


@pytest.mark.parametrize("lacks", ["fold", "compiler"])
def test_a_run_that_cannot_go_on_compiled_goes_on_without(lacks, run, monkeypatch):
    begun = run()
    assert execute(begun) == "completed"
    config = yaml.safe_load(begun.folder.config.read_text())
    for before in ("step", True):
        begun.folder.config.write_text(yaml.safe_dump({**config, "trainer": {**config["trainer"], "compile": before}}))
        assert with_choices(begun, begun.folder).settings.trainer.compile == before
    again = run(*(["trainer.fold=false"] if lacks == "fold" else []))
    if lacks == "compiler":
        monkeypatch.setattr("shutil.which", lambda name: None)
    assert with_choices(again, again.folder).settings.trainer.compile is False


@pytest.mark.parametrize("objective", ["trades", "n_fgsm"])
def test_half_precision_is_reproducible_bit_for_bit_also_when_cut_off(objective, run, interrupt):
    whole, cut = (run(HALF, f"objective={objective}", f"study.name={name}") for name in ("whole", "cut"))
    assert execute(whole) == "completed"
    interrupt(cut, 1)
    assert execute(cut) == "completed"
    assert same_weights(weights(whole), weights(cut))


class NothingIsReadBack(TorchDispatchMode):
    """Raises where the host would wait for the device: to read a number, or to learn a shape that depends on values."""

    WAITS = frozenset({"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::_unique2"})

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._schema.name in self.WAITS:
            raise AssertionError(f"the host waits for the device: {func}")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("objective", "precision"),
    [(each, "bf16-mixed") for each in ("sat", "trades", "mart", "n_fgsm", "natural")] + [("trades", "32")],
)
def test_no_step_but_the_checked_ones_reads_a_number_back(objective, precision, run, monkeypatch):
    real, watched = AdversarialTraining.training_step, []

    def step(module, batch, batch_idx):
        if not batch_idx:  # looks whether the loss is finite, and makes the frozen form
            return real(module, batch, batch_idx)
        watched.append(batch_idx)
        with NothingIsReadBack():
            return real(module, batch, batch_idx)

    monkeypatch.setattr(AdversarialTraining, "training_step", step)
    done = run(f"objective={objective}", f"trainer.precision={precision}", "evaluate.attacks=[]")
    assert execute(done) == "completed", done.folder.status.error
    assert watched == [1, 2] * 2


def test_reading_back_would_be_seen():
    with NothingIsReadBack(), pytest.raises(AssertionError, match="waits"):
        bool(torch.ones(1).sum() > 0)


@pytest.mark.parametrize("objective", ["sat", "trades", "mart"])
def test_the_first_step_has_the_loss_of_the_plain_path(objective, run):
    """Later ones follow other roundings; that accuracies agree is measured by benchmarks/accuracy.py."""
    one_step = (
        f"objective={objective}",
        "trainer.max_epochs=1",
        "trainer.limit_train_batches=1",
        "evaluate.attacks=[]",
    )
    plain = run(*one_step, "trainer.fold=false", "trainer.channels_last=false", "trainer.data=stream", "seed=3",
                "study.name=plain")  # fmt: skip
    fast, half = (run(*one_step, f"trainer.precision={precision}", "seed=3") for precision in ("32", "bf16-mixed"))
    losses = []
    for each in (plain, fast, half):
        assert execute(each) == "completed", each.folder.status.error
        losses.append(metrics.read_rows(each.folder.metrics)[0]["train_loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[2] == pytest.approx(losses[0], rel=0.02)


def test_held_out_accuracy_under_one_step_by_hand(run):
    done = run("trainer.max_epochs=1", "trainer.limit_train_batches=18", "evaluate.attacks=[]", "trainer.fold=false")
    assert execute(done) == "completed"
    net, val = load_checkpoint(done.folder.checkpoint("last")).net.eval(), done.splits.val
    chosen = stratified(val.labels, 20, seed=0)
    x, y = val.images[chosen].float() / 16, val.labels[chosen]
    x.requires_grad_(True)
    logits = net(x)
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits, y), x)
    standing = (net((x + 0.2 * gradient.sign()).clamp(0, 1)).argmax(1) == y) & (logits.argmax(1) == y)
    assert int((logits.argmax(1) == y).sum()) > 0
    assert metrics.read_rows(done.folder.metrics)[0]["val_fgsm_acc"] == pytest.approx(100 * int(standing.sum()) / 20)


def test_compiling_without_a_compiler_is_refused(composed, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(InputError, match=r"trainer\.compile = True: expected false here: there is no C\+\+ compiler"):
        read_settings(composed("trainer.compile=true"))
    read_settings(composed("trainer.compile=auto"))


def test_an_attack_for_training_alone_is_refused_in_selection_and_evaluation(composed, tmp_path):
    (tmp_path / "attack").mkdir()
    (tmp_path / "attack" / "far.yaml").write_text("_target_: robust_arch.attacks.NFGSM\n")
    overrides = (f"hydra.searchpath=[file://{tmp_path}]", "evaluate.attacks=[far]")
    with pytest.raises(InputError, match=r"evaluate\.attacks = 'NFGSM': .* reaches 3 eps and is for training"):
        read_settings(composed(*overrides))
    selection = ("selection.attack._target_=robust_arch.attacks.NFGSM", "~selection.attack.steps")
    # 2 of noise, and the step size of the configuration
    with pytest.raises(InputError, match=r"selection\.attack = 'NFGSM': .* reaches 2.25 eps"):
        read_settings(composed(*selection))


def test_the_plain_trainer_switches_everything_off(composed):
    trainer = read_settings(composed("trainer=plain")).trainer
    assert (trainer.precision, trainer.compile, trainer.fold) == (32, False, False)
    assert (trainer.channels_last, trainer.data, trainer.keep_memory) == (False, "stream", False)
