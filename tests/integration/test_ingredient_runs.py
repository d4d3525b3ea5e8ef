"""Ingredients of training in whole runs: each has an effect, resumes exactly, and is part of the records' names."""

import pytest
from commands import SMALL, call
from typer.testing import CliRunner
from weights import same_weights, weights

from robust_arch.cli import app
from robust_arch.common.paths import conf_dir
from robust_arch.configuration.settings import read_settings
from robust_arch.errors import InputError
from robust_arch.execution.execute import execute
from robust_arch.runs import load_study, metrics

BRIEF = ("trainer.max_epochs=1", "trainer.limit_train_batches=2", "evaluate.attacks=[fgsm]", "evaluate.n=10")
SOFT = ("recipe.label_smoothing=0.1", "recipe.mixup.alpha=0.2", "recipe.cutmix.alpha=1")
OBJECTIVES = sorted(path.stem for path in (conf_dir() / "objective").glob("*.yaml"))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_trains_on_soft_labels(objective, run):
    done = run(*BRIEF, f"objective={objective}", *SOFT)
    assert execute(done) == "completed", done.folder.status.error
    assert done.facts.recipe == "digits+label_smoothing0.1+mixup0.2+cutmix1"
    assert {row.recipe for row in load_study(done.study.path).itertuples()} == {done.facts.recipe}


@pytest.mark.parametrize("objective", ["trades", "n_fgsm"])
def test_a_run_with_all_ingredients_resumes_exactly(objective, run, interrupt):
    overrides = (
        f"objective={objective}", *SOFT, "recipe.attack_warmup=1", "recipe.eps_warmup=2", "trainer.max_epochs=4",
        "recipe.augment.cutout=2", "evaluate.attacks=[fgsm]",
    )  # fmt: skip
    whole, cut = run(*overrides, "study.name=whole"), run(*overrides, "study.name=cut")
    execute(whole)
    for epoch in (1, 3):
        interrupt(cut, epoch)
    assert execute(cut) == "completed"
    assert same_weights(weights(whole), weights(cut))
    rows_of_both = (metrics.read_rows(each.folder.metrics) for each in (whole, cut))
    for ours, theirs in zip(*rows_of_both, strict=True):
        assert {**ours, "seconds": 0, "time": 0} == {**theirs, "seconds": 0, "time": 0}


def test_before_the_attack_begins_trades_descends_cross_entropy_alone(run):
    done = run("objective=trades", "recipe.attack_warmup=1", "evaluate.attacks=[fgsm]", "evaluate.n=10")
    assert execute(done) == "completed"
    natural, attacked = metrics.read_rows(done.folder.metrics)
    assert natural["train_kl"] == pytest.approx(0, abs=1e-6)
    assert natural["train_loss"] == pytest.approx(natural["train_natural_loss"], abs=1e-5)
    assert attacked["train_kl"] > 1e-4


def test_an_attack_without_soft_labels_is_refused_before_anything_is_written(composed, tmp_path):
    with pytest.raises(InputError, match=r"^objective = .*expected one that takes soft labels"):
        read_settings(composed("+objective.attack.restarts=2", "recipe.mixup.alpha=1"))
    read_settings(composed("+objective.attack.restarts=2"))
    assert not (tmp_path / "results").exists()


def test_beta_by_width_is_the_weight_of_the_divergence(run):
    # widths 4, 8, 8 over 16, 32, 64: factors 1/4, 1/4, 1/8, 5/24 on average; between (1/12, 3) and (1/3, 9): 6
    done = run(*BRIEF, "objective=trades", "objective.beta={0.08333333333:3,0.33333333333:9}")
    assert execute(done) == "completed"
    (row,) = metrics.read_rows(done.folder.metrics)
    assert row["train_loss"] == pytest.approx(row["train_natural_loss"] + 6 * row["train_kl"], rel=1e-5)
    assert done.facts.objective == "trades-beta0.0833333:3,0.333333:9"
    assert "beta 0.08333333333 3, beta 0.33333333333 9" in (done.folder.evaluations / "card.md").read_text()


OPTIMIZERS = {
    "sgd": "{_target_: torch.optim.SGD, _partial_: true, lr: 0.1, momentum: 0.9, weight_decay: 5.0e-4}",
    "nesterov": "{_target_: torch.optim.SGD, _partial_: true, lr: 0.1, momentum: 0.9, nesterov: true}",
    "adamw": "{_target_: torch.optim.AdamW, _partial_: true, lr: 1.0e-3, weight_decay: 0.05}",
}
SCHEDULES = {
    "sgd": "{_target_: robust_arch.training.schedule.Steps, milestones: [0.5]}",
    "nesterov": "{_target_: robust_arch.training.schedule.PiecewiseLinear, points: [[0, 0.1], [0.4, 1], [1, 0]]}",
    "adamw": "{_target_: robust_arch.training.schedule.Warmup, warmup_epochs: 1, start: 0.1, "
    "then: {_target_: robust_arch.training.schedule.Cosine}}",
}
RATES = {"sgd": [0.1, 0.01], "nesterov": [0.01, 0.1 * 5 / 6], "adamw": [1e-4, 5e-4]}  # at the first step of each epoch


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_short_yaml_is_a_recipe(name, tmp_path):
    folder = tmp_path / "mine" / "recipe"
    folder.mkdir(parents=True)
    (folder / "own.yaml").write_text(
        f"""_target_: robust_arch.training.recipe.Recipe
name: own_{name}
epochs: 2
batch_size: 32
optimizer: {OPTIMIZERS[name]}
schedule: {SCHEDULES[name]}
augment: {{_target_: robust_arch.data.augment.CropFlip, padding: 0, flip: false}}
mixup: {{_target_: robust_arch.data.mixing.MixUp, alpha: 0.2}}
"""
    )
    given = ("--config-dir", "mine", "recipe=own", "objective=fgsm_rs", "evaluate.attacks=[fgsm]", "evaluate.n=10")
    process = call("robust_arch.train", *given, *SMALL, "study.name=own", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    (row, *_) = load_study(tmp_path / "results" / "own").itertuples()
    assert row.recipe == f"own_{name}+mixup0.2"
    rows = metrics.read_rows(next((tmp_path / "results" / "own" / "runs").glob("*/metrics.csv")))
    assert [each["lr"] for each in rows] == pytest.approx(RATES[name])


@pytest.mark.slow  # a whole study
def test_a_study_of_betas_keeps_them_apart_and_picks_each_architectures_best(tmp_path):
    grid = ("study.name=betas", "search.space.depths=[[1],[1],[1]]", "search.space.widths=[[4,8],[8],[8]]")
    swept = ("hydra/sweeper=budget", "objective=trades", "objective.beta=3,6,{0.1:1,0.5:12}", *grid)
    process = call("robust_arch.train", "-m", *SMALL, *swept, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    path = tmp_path / "results" / "betas"
    frame = load_study(path)
    labels = {"trades-beta3", "trades", "trades-beta0.1:1,0.5:12"}
    assert set(frame["objective"]) == labels
    assert len(set(frame["run_id"])) == 6
    result = CliRunner().invoke(app, ["claims", str(path), "--best-beta"])
    assert result.exit_code == 0, result.output
    assert "beta chosen by mean robust accuracy on held-out images (runs), not on test images:" in result.output
    assert result.output.count("wide_resnet-d1-1-1-w") >= 2
    assert "objective trades-best_beta" in result.output
    # the reports and the claims without the option keep the betas in groups of their own
    result = CliRunner().invoke(app, ["claims", str(path)])
    assert all(f"objective {label}," in result.output for label in labels)
