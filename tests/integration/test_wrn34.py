"""The published comparison's command, for two batches of a narrow stand-in on made-up images of the right shape."""

import pytest

from experiments.wrn34.table import tabulate
from robust_arch.execution.execute import execute
from robust_arch.execution.run import Run
from robust_arch.runs import load_study
from robust_arch.study.plan import plan_study
from robust_arch.study.plan_table import plans_from_command


def test_the_study_names_its_networks_objectives_and_data_itself(small_images):
    def planned(*overrides):
        return {
            (run.settings.dataset.name, run.settings.objective.name, run.cost.params)
            for plan in plans_from_command(["study=wrn34", *overrides])
            for run in [planned.run for planned in plan.runs]
        }

    both = {"cifar10": (66_457_818, 68_116_698), "cifar100": (66_457_818 + 90 * 769, 68_116_698 + 90 * 513)}
    expected = {(data, name, params) for data in both for name in ("sat", "trades", "mart") for params in both[data]}
    assert planned() == expected
    assert planned("objective=trades", "data=cifar10", "arch=wrn_34_r") == {("cifar10", "trades", 68_116_698)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "objective"), [("cifar10", "sat"), ("cifar10", "trades"), ("cifar10", "mart"), ("cifar100", "sat")]
)
def test_each_command_runs(composed, small_images, tmp_path, data, objective):
    plans = {}
    for arch in ("wrn_34_12", "wrn_34_r"):
        command = ("study=wrn34", f"arch={arch}", f"objective={objective}", f"data={data}")
        (planned,) = plan_study(composed(*command, "logger=csv", small=False), []).runs
        plans[arch] = planned.run
        settings = planned.run.settings
        # domain knowledge, not an echo of the YAML: the published hyper-parameters
        assert (settings.recipe.batch_size, settings.trainer.max_epochs, settings.recipe.gradient_clip) == (128, 100, 5)
        assert str(settings.threat) == "linf-8/255"
        assert (settings.objective.attack.steps, settings.objective.attack.rel_step_size) == (10, 0.25)
    assert plans["wrn_34_12"].cost.params == 66_457_818 + (data == "cifar100") * 90 * 769
    assert plans["wrn_34_r"].cost.macs == 19_132_765_184 + (data == "cifar100") * 90 * 512
    narrow = (
        "arch.depths=[1,1,1]", "arch.widths=[4,4,4]", "trainer.max_epochs=1", "trainer.limit_train_batches=2",
        "trainer.threads=1", "selection.images=10", "evaluate.n=100", "evaluate.attacks=[fgsm]", "logger=csv",
    )  # fmt: skip
    (stand_in,) = plan_study(composed(*command, *narrow, small=False), []).runs
    assert isinstance(stand_in.run, Run)
    assert execute(stand_in.run) == "completed"
    frame = load_study(tmp_path / "results" / "wrn34")
    assert set(frame["train_threat"]) == {"linf-8/255"}
    assert set(frame["recipe"]) == {"huang2021"}
    # a narrow stand-in on 100 images is not one of the networks of the table: it must not be taken for ours
    rows = tabulate([tmp_path / "results" / "wrn34"]).rows
    assert {row[6] for row in rows if row[5] == "ours"} == {"0"}
    assert len(rows) == 12 + 4
