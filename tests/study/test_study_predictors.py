"""predictors.csv of a study: from the configurations of its runs, resumable, and the same numbers again."""

import csv
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from robust_arch.architectures import ArchSpec, build
from robust_arch.common.randomness import derive
from robust_arch.data.digits import Digits
from robust_arch.errors import InputError
from robust_arch.evaluation.predictors import gradient_norm
from robust_arch.evaluation.smoothness import upper_bounds
from robust_arch.study.predictors import Initial, compute_predictors, initial_networks, measured

HEAD = (
    "run_id,study,arch,family,depths,widths,params,macs,objective,recipe,train_threat,data,seed,epochs,checkpoint,"
    "weights,threat,n_test,clean_acc,fgsm_acc,pgd20_acc,cw40_acc,autoattack_acc,worst_case_acc,stability,lipschitz,"
    "train_seconds,status"
)


def row(run_id, seed, widths="4-4-4"):
    return (
        f"{run_id},s,wide_resnet-d1-1-1-w{widths},wide_resnet,1-1-1,{widths},1,1,sat,digits,linf-0.2,digits,{seed},10,"
        f"best,raw,linf-0.2,360,90,,50,,,50,,,1,completed"
    )


@pytest.fixture
def study(tmp_path):
    (tmp_path / "results.csv").write_text("\n".join([HEAD, row("aaaaaaaaaaaa", 0), row("bbbbbbbbbbbb", 1)]) + "\n")
    return tmp_path


def read(path):
    with Path(path).open(newline="") as handle:
        return list(csv.DictReader(handle))


def test_a_number_is_that_of_the_run_s_own_network_and_batch(study):
    rows = read(compute_predictors(study, ["grad_norm", "operator_bound"], batch=4))
    assert [each["run_id"] for each in rows] == ["aaaaaaaaaaaa", "bbbbbbbbbbbb"]
    assert all(each["ntk_condition"] == "" for each in rows)  # not asked for
    initial = dict(initial_networks(study))["bbbbbbbbbbbb"]
    start = initial.start(4)
    # the network as a run starts from it
    own = build(initial.spec, 10, (1, 8, 8), seed=derive(1, "initialisation"))
    assert all(torch.equal(mine, its) for mine, its in zip(own.parameters(), start.net.parameters(), strict=True))
    train = Digits(name="digits", val_fraction=0.167).load().train
    assert all(any(torch.equal(each, image) for image in train.to_unit(train.images)) for each in start.x)
    bound = upper_bounds(own, (1, 8, 8))["network"]  # before any image has moved BatchNorm's averages
    assert float(rows[1]["operator_bound"]) == pytest.approx(bound, rel=1e-6)
    assert float(rows[1]["grad_norm"]) == pytest.approx(gradient_norm(start.net, start.x, start.y), rel=1e-6)


def test_what_is_recorded_is_kept_and_only_the_rest_is_computed(study, monkeypatch):
    path = compute_predictors(study, ["grad_norm"], batch=4)
    first = read(path)
    text = path.read_text().replace(first[0]["grad_norm"], "123")
    path.write_text(text)
    started = []
    start = Initial.start
    monkeypatch.setattr(Initial, "start", lambda self, batch: started.append(self.seed) or start(self, batch))
    compute_predictors(study, ["grad_norm"], batch=4)
    assert started == []
    assert path.read_text() == text
    compute_predictors(study, ["grad_norm", "ntk_condition"], batch=4)
    assert started == [0, 1]
    assert [each["grad_norm"] for each in read(path)] == ["123", first[1]["grad_norm"]]
    assert all(float(each["ntk_condition"]) > 1 for each in read(path))


@pytest.mark.parametrize(
    ("names", "batch", "message"),
    [(["colour"], 4, "--columns = 'colour'"), (["grad_norm"], 10**6, "--batch = 1000000: expected at most the")],
)
def test_bad_input_is_one_error_and_writes_nothing(study, names, batch, message):
    with pytest.raises(InputError) as caught:
        compute_predictors(study, names, batch)
    assert message in str(caught.value)
    assert not (study / "predictors.csv").exists()


def test_an_architecture_that_was_not_trained_is_measured_as_a_mean_over_three_seeds(study):
    compute_predictors(study, ["grad_norm"], 4)
    spec = ArchSpec("wide_resnet", (1, 1, 1), (4, 4, 8))
    found = measured([study], ["grad_norm"])([spec])
    first = dict(initial_networks(study))["aaaaaaaaaaaa"]
    starts = [replace(first, spec=spec, seed=seed).start(4) for seed in range(3)]
    expected = sum(math.log10(gradient_norm(start.net, start.x, start.y)) for start in starts) / 3
    assert found.tolist() == [[pytest.approx(expected)]]


def test_a_foreign_file_is_not_replaced(study):
    (study / "predictors.csv").write_text("mine\n1\n")
    with pytest.raises(InputError, match=r"predictors\.csv = "):
        compute_predictors(study, ["grad_norm"], 4)
    assert (study / "predictors.csv").read_text() == "mine\n1\n"


def test_a_run_on_data_that_is_not_known_is_left_out(study):
    text = (study / "results.csv").read_text().replace("digits,1,10", "elsewhere,1,10")
    (study / "results.csv").write_text(text)
    assert list(dict(initial_networks(study))) == ["aaaaaaaaaaaa"]
