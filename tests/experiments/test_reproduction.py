"""The rows of the paper's comparison: hyper-parameters, a short run of each on a narrow network, and the table."""

import pickle
import shlex

import numpy as np
import pandas as pd
import pytest
from planted_studies import rows as planted
from planted_studies import wide

from experiments.reproduction.rows import CONF, HERE, Row, recorded, rows, tabulate
from robust_arch.attacks import Gaussian, KLToClean
from robust_arch.common.paths import conf_dir
from robust_arch.errors import InputError
from robust_arch.execution.execute import execute
from robust_arch.runs import load_study, to_frame
from robust_arch.study.plan import plan_study

ROWS = list(rows())
BY_STUDY = {row.study: row for row in ROWS}
NARROW = {  # each network with one block per stage
    "wide_resnet": ("arch.depths=[1,1,1]", "arch.widths=[4,4,4]"),
    "vgg": ("arch.depths=[1,1,1,1,1]", "arch.widths=[4,4,4,4,4]"),
    "densenet": ("arch.depths=[1,1,1,1]", "arch.widths=[2,2,2,2]", "arch.stem_width=4"),
    "darts": ("arch.depths=[1,1,1]", "arch.widths=[4,4,4]", "arch.stem_width=4"),
}
SHORT = (
    "trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.threads=1", "selection.images=10",
    "evaluate.n=20", "evaluate.attacks=[fgsm]", "search.seeds=[0]", "logger=csv",
)  # fmt: skip


@pytest.fixture
def plan(composed, small_images, tmp_path):
    """The plan of a row's command, with further overrides."""
    images = {
        "data": np.zeros((40, 32, 32, 3), dtype=np.uint8),
        "extrapolated_targets": np.arange(40) % 10,
    }
    (tmp_path / "extra.pickle").write_bytes(pickle.dumps(images))

    def make(row: Row, *overrides: str):
        words = shlex.split(row.command)
        assert words[:6] == ["python", "-m", "robust_arch.train", "-m", "--config-dir", CONF]
        given = [f"extra.path={tmp_path}/extra.pickle" if "extra.path" in word else word for word in words[6:]]
        searched = f"hydra.searchpath=[file://{HERE / 'conf'}]"
        return plan_study(composed(searched, *given, *overrides, small=False), []).runs

    return make


def assert_published_hyper_parameters(row, settings):
    """Of the published code, not of the YAML."""
    recipe, threat = settings.recipe, settings.threat
    assert (str(threat), recipe.optimizer.keywords["momentum"]) == ("linf-8/255", 0.9)
    attack = settings.objective.attack
    assert (attack.steps, attack.rel_step_size) == (10, 0.25)
    if row.objective == "trades":
        assert (attack.start, settings.objective.beta, type(attack.loss)) == (Gaussian(std=0.001), 6, KLToClean)
    else:
        assert attack.start == Gaussian(rel_std=0.25)
    rates = [recipe.schedule(epoch, settings.trainer.max_epochs) for epoch in (0, 74, 75, 89, 90, 99)]
    if "500k" in row.study:
        assert (recipe.batch_size, settings.trainer.max_epochs, recipe.gradient_clip) == (256, 400, None)
        assert (recipe.steps_per_epoch, recipe.optimizer.keywords["weight_decay"]) == (196, 5e-4)
        assert rates[2] == pytest.approx((1 + np.cos(np.pi * 74 / 400)) / 2)
    else:
        assert (recipe.batch_size, settings.trainer.max_epochs, recipe.gradient_clip) == (128, 100, 5)
        assert recipe.optimizer.keywords["weight_decay"] == 2e-4
        assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert recipe.optimizer.keywords["lr"] == 0.1


@pytest.mark.parametrize("row", BY_STUDY.values(), ids=BY_STUDY)
def test_each_study_has_the_published_hyper_parameters(row, plan):
    runs = plan(row)
    assert_published_hyper_parameters(row, runs[0].run.settings)
    assert len(runs) == (1 if "500k" in row.study else 3)  # the seeds behind the published figures
    assert {planned.run.settings.spec for planned in runs} == {row.spec}


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.name}-{row.objective}-{row.data}-{row.weights}")
def test_each_command_runs_for_two_batches_of_a_narrow_network(row, plan, tmp_path):
    full = plan(row)[0].run
    assert_published_hyper_parameters(row, full.settings)
    assert full.settings.spec == row.spec
    (stand_in,) = plan(row, *SHORT, *NARROW[row.spec.family])
    assert execute(stand_in.run) == "completed"
    frame = load_study(tmp_path / "results" / row.study)
    assert set(frame["recipe"]) == {row.recipe}
    assert row.weights in set(frame["weights"])
    # a narrow network on 20 images is none of the table's: it must not be taken for ours
    assert set(tabulate(frame)["ours_seeds"]) == {""}


def test_the_table_is_what_the_rows_give():
    assert (HERE / "table.csv").read_text() == tabulate(recorded([])).to_csv(index=False)


def test_published_figures_are_those_at_hand_and_no_others(published):
    table = pd.read_csv(HERE / "table.csv", keep_default_na=False)
    assert len(table) == 12 + 3 + 6
    comparison = {row["name"]: row for row in published["last_stage_comparison"]["rows"]}
    for _, row in table.iterrows():
        figures = row[[name for name in table.columns if name.startswith("published_")]].tolist()
        if row["source"] == "not at hand":
            assert set(figures) == {""}
        elif row["recipe"] == "huang2021":
            assert row["objective"] == "trades"
            assert [float(figure) for figure in figures] == list(comparison[row["network"]][row["data"]].values())
        else:
            entry = {"raw": ["90.56", "", "", "61.56"], "ema": ["91.23", "", "", "62.54"]}
            assert figures == entry[row["weights"]]
    assert (table["source"] != "not at hand").sum() == 4 + 2
    costs = dict(zip(table["network"], table["params"], strict=True))
    # of the published networks, and by hand: 3 convolutions of the reduced stage, each with bias and BatchNorm; linear
    assert costs["VGG-16"] - costs["VGG-16, last stage reduced"] == (
        9 * (512 * 512 * 3 - 512 * 208 - 2 * 208 * 208) + 3 * 3 * (512 - 208) + 10 * (512 - 208)
    )


def test_recorded_runs_of_a_row_and_no_others_are_ours():
    runs = planted([wide((5, 5, 5), (320, 640, 512))], {"wrn_34_r": [50.0, 52.0, 54.0]})
    for run in runs:
        run |= {"study": "reproduction", "data": "cifar10", "objective": "trades", "recipe": "huang2021"}
        run |= {"threat": "linf-8/255", "train_threat": "linf-8/255", "n_test": 10_000, "epochs": 100}
        run |= {"cw40_acc": float("nan")}
    others = [{**runs[0], "run_id": "x", "recipe": "short"}, {**runs[0], "run_id": "y", "study": "mine"}]
    table = tabulate(to_frame([*runs, *others]))
    (ours,) = table[table["ours_seeds"] != ""].to_dict("records")
    assert (ours["network"], ours["data"], ours["objective"]) == ("WRN-34-R", "cifar10", "trades")
    # mean 53 of pgd20, half width t(2, 0.95) * 2 / sqrt(3) = 4.97
    assert (ours["ours_seeds"], ours["ours_pgd20"], ours["ours_cw40"]) == ("3", "53.00 [48.03, 57.97]", "")
    with pytest.raises(InputError, match=r"seeds \[0, 0, 1, 2\]"):
        tabulate(to_frame([*runs, {**runs[0], "run_id": "z"}]))


def test_each_objective_and_study_of_the_folder_belongs_to_a_row():
    used = {row.study for row in ROWS} | {row.objective for row in ROWS}
    own = {path.stem for path in (HERE / "conf").rglob("*.yaml")}
    assert own <= used
    assert used - own <= {path.stem for path in (conf_dir() / "objective").glob("*.yaml")}
