"""Shipped studies on every launcher: composed, and what `robust-arch plan` makes of its words."""

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import get_class
from omegaconf import OmegaConf
from typer.testing import CliRunner

from robust_arch.cli import app
from robust_arch.common.paths import conf_dir
from robust_arch.configuration.resolvers import register_resolvers
from robust_arch.study.plan_table import plans_from_command

STUDIES = sorted(path.stem for path in (conf_dir() / "study").glob("*.yaml"))
ON_MANY_CORES = [study for study in STUDIES if study != "wrn34"]
PACKAGES = {
    "submitit_local": "hydra_plugins.hydra_submitit_launcher",
    "submitit_slurm": "hydra_plugins.hydra_submitit_launcher",
    "ray": "hydra_plugins.hydra_ray_launcher",
}


def hydra_node(study, *overrides):
    """What Hydra is told of a study; the launcher's keys are resolved."""
    if study == "optuna":
        pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    register_resolvers()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", overrides=[f"study={study}", *overrides], return_hydra_config=True)
    return cfg.hydra.runtime.choices["hydra/launcher"], OmegaConf.to_container(cfg.hydra.launcher, resolve=False)


# a study with many runs at once by default, one without, and one with a sweeper of its own
@pytest.mark.parametrize("launcher", ["basic", "joblib", *PACKAGES])
@pytest.mark.parametrize("study", ["budget", "wrn34", "optuna"])
def test_a_study_takes_every_launcher(study, launcher):
    if launcher in PACKAGES:
        pytest.importorskip(PACKAGES[launcher])
    choice, node = hydra_node(study, f"hydra/launcher={launcher}")
    assert choice == launcher
    assert get_class(node["_target_"]).__module__.startswith("hydra")
    assert ("n_jobs" in node) == (launcher == "joblib")


@pytest.mark.parametrize("study", ON_MANY_CORES)
def test_by_default_as_many_run_at_once_as_there_are_cores(study):
    choice, node = hydra_node(study)
    assert (choice, node["n_jobs"]) == ("joblib", -1)
    assert hydra_node(study, "hydra.launcher.n_jobs=2")[1]["n_jobs"] == 2


def test_a_study_at_a_larger_scale_starts_one_run_after_the_other():
    assert hydra_node("budget", "scale=small")[0] == "basic"


def test_a_plan_for_another_launcher(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["plan", "study=budget", "hydra/launcher=basic", "search.seeds=[0]"])
    assert result.exit_code == 0, result.output
    assert "runs inside" in result.output


def test_the_words_of_the_training_command_are_planned_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (plan,) = plans_from_command(["-m", "study=demo", "--stop-on-failure", "logger=csv"])
    assert all(planned.run.settings.stop_on_failure for planned in plan.runs)
    assert all("study.stop_on_failure=True" in planned.overrides for planned in plan.runs)
    (plan,) = plans_from_command(["study=demo", "logger=csv"])
    assert not any(planned.run.settings.stop_on_failure for planned in plan.runs)
