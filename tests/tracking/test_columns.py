"""What is logged of a run: names, columns and final numbers, against values computed by hand."""

import json

import pytest

from robust_arch.configuration.settings import read_settings
from robust_arch.execution.execute import execute
from robust_arch.execution.run import Run
from robust_arch.runs import RunFacts
from robust_arch.tracking.columns import run_columns, run_name, run_summary, run_tags

FACTS = RunFacts(
    run_id="0",
    study="mine",
    arch="wrn_34_r",
    family="wide_resnet",
    depths="5-5-5",
    widths="320-640-512",
    params=68116698,
    macs=19132765184,
    objective="trades",
    recipe="digits",
    train_threat="linf-8/255",
    data="digits",
    seed=3,
    epochs=100,
)


def test_a_name_says_which_run_of_the_study_it_is():
    assert run_name(FACTS) == "wrn_34_r-trades-e100-s3"


def test_each_tag_once_and_none_that_wandb_refuses(monkeypatch):
    assert run_tags(FACTS) == ["wide_resnet", "trades", "digits", "linf-8/255"]
    long = RunFacts(**{**FACTS.__dict__, "data": "d" * 65, "recipe": "r" * 64})
    assert run_tags(long) == ["wide_resnet", "trades", "r" * 64, "linf-8/255"]


def test_columns_of_one_value_each(composed):
    run = Run.load(read_settings(composed("threat.eps=8/255")))
    columns = run_columns(run.facts, run.settings.spec, run.cost, run.settings.threat.eps)
    # by hand, 4-8-8 on 8x8 images of one channel in ten classes: the stages have 824, 920 and 1,248 parameters and
    # 784 * 64, 896 * 16 and 1,216 * 4 multiply-accumulates
    params, macs = (824, 920, 1248), (50176, 14336, 4864)
    expected = {"params": 3242, "macs": 78672, "eps": 8 / 255, "epochs": 2}
    expected |= {"arch_name": "wide_resnet-d1-1-1-w4-8-8", "train_threat": "linf-8/255"}
    expected |= {"objective_name": "sat", "recipe_name": "digits", "data_name": "digits"}
    for stage, width in enumerate((4, 8, 8), start=1):
        expected |= {f"stage{stage}_width": width, f"stage{stage}_depth": 1}
        expected[f"stage{stage}_params_share"] = pytest.approx(params[stage - 1] / sum(params))
        expected[f"stage{stage}_macs_share"] = pytest.approx(macs[stage - 1] / sum(macs))
    expected |= {"last_params_share": pytest.approx(1248 / 2992), "last_macs_share": pytest.approx(4864 / 69376)}
    assert columns == expected


def test_final_numbers_are_those_of_the_question(composed):
    run = Run.load(read_settings(composed()))
    execute(run)
    before = run_summary(run.folder, "completed")
    result = run.folder.result
    assert before["robust_overfitting"] == result.best_val_robust_acc - result.last_val_robust_acc
    for evaluation in list(run.folder.evaluation_records()):
        record = evaluation.plain()
        number = before[f"{record['checkpoint']}-n40/worst_case_acc"]
        assert number == record["worst_case"]["percent"]
        for key, value in (("threat", "linf-0.1"), ("data", "others")):  # another question about the same network
            other = {**record, key: value, "eval_id": key, "clean": {**record["clean"], "percent": 100.0}}
            (run.folder.evaluations / f"{key}-{record['checkpoint']}.json").write_text(json.dumps(other))
    assert run_summary(run.folder, "completed") == before


def test_a_run_that_did_not_finish_has_a_state_alone(composed):
    run = Run.load(read_settings(composed()))
    assert run_summary(run.folder, "failed") == {"state": "failed"}
