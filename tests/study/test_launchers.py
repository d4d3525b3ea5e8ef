"""One plan through every launcher: the same results."""

import pandas as pd
import pytest
from commands import SMALL, command

PLAN = (
    *SMALL,
    "hydra/sweeper=budget",
    "arch.widths=[4,4,4]",
    "search.space.depths=[[1],[1],[1]]",
    "search.space.widths=[[4],[4,8],[8]]",
    "search.seeds=[0,1]",
)
LAUNCHERS = {
    "joblib": ("hydra.launcher.n_jobs=2",),
    "submitit_local": ("hydra.launcher.timeout_min=10",),
    "ray": ("+hydra.launcher.ray.init.num_cpus=2", "+hydra.launcher.ray.init.include_dashboard=false"),
}
PACKAGES = {"submitit_local": "hydra_plugins.hydra_submitit_launcher", "ray": "hydra_plugins.hydra_ray_launcher"}


def sweep(folder, *overrides):
    (folder / "mine" / "attack").mkdir(parents=True)
    (folder / "mine" / "attack" / "pgd3.yaml").write_text(
        "_target_: robust_arch.attacks.PGD\nsteps: 3\nrel_step_size: 0.5\n"
    )
    own = ("--config-dir", "mine", "evaluate.attacks=[fgsm,pgd3]")  # which workers have to find too
    return command("robust_arch.train", "-m", *PLAN, *own, *overrides, cwd=folder)


def numbers(folder):
    """results.csv without what times and names differ in."""
    frame = pd.read_csv(folder / "results" / "single" / "results.csv")
    assert frame["pgd3_acc"].notna().all()
    return frame.drop(columns="train_seconds").sort_values(["run_id", "checkpoint"]).reset_index(drop=True)


@pytest.fixture(scope="module")
def one_after_the_other(tmp_path_factory):
    folder = tmp_path_factory.mktemp("basic")
    done = sweep(folder)
    assert done.returncode == 0, done.stderr
    return numbers(folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", LAUNCHERS)
def test_every_launcher_gives_the_same_results(one_after_the_other, tmp_path, name):
    if name in PACKAGES:
        pytest.importorskip(PACKAGES[name])
    done = sweep(tmp_path, f"hydra/launcher={name}", *LAUNCHERS[name])
    assert done.returncode == 0, done.stderr
    pd.testing.assert_frame_equal(numbers(tmp_path), one_after_the_other)
    records = (tmp_path / "results" / "single" / "runs").glob("*/status.json")
    assert {pd.read_json(path, typ="series")["launcher"] for path in records} == {name}
