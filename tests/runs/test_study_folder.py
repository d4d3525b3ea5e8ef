import math
import os
import time

import numpy as np
import pandas as pd
import pytest
import records

from robust_arch.analysis.reading import read_results
from robust_arch.common.files import write_json
from robust_arch.errors import InputError
from robust_arch.runs import StudyFolder, load_study

# as the documentation promises them, in this order
COLUMNS = [
    "run_id", "study", "arch", "family", "depths", "widths", "params", "macs", "objective", "recipe", "train_threat",
    "data", "seed", "epochs", "checkpoint", "weights", "threat", "n_test", "clean_acc", "fgsm_acc", "pgd20_acc",
    "cw40_acc", "autoattack_acc", "worst_case_acc", "stability", "lipschitz", "train_seconds", "status",
]  # fmt: skip
FACTS = COLUMNS[: COLUMNS.index("checkpoint")]
SITE = ["hardware", "precision", "version"]  # after all others
NUMBERS = COLUMNS[COLUMNS.index("n_test") : COLUMNS.index("status")]


def facts(run_id, **changes):
    known = {"arch": "wrn_x", "depths": "5-5-5", "train_threat": "linf-8/255"}
    return records.FACTS.model_copy(update={"run_id": run_id, **known, **changes})


def share(percent):
    return {"count": int(percent), "n": 100, "percent": percent, "interval": [percent - 5, percent + 5]}


def record(checkpoint="best", lipschitz=12.5, **attacks):
    """An evaluation record as far as a row needs it; accuracies of attacks in percent."""
    content = {
        "schema": 1,
        "checkpoint": checkpoint,
        "weights": "raw",
        "threat": "linf-8/255",
        "n_test": 100,
        "data": "digits",
        "clean": share(90.0),
        "attacks": {name: share(percent) for name, percent in attacks.items()},
    }
    if attacks:
        content["worst_case"] = {**share(min(attacks.values())), "attacks": sorted(attacks)}
    if "pgd20" in attacks:
        content["stability"] = share(60.0)
        content["lipschitz"] = {"mean": lipschitz, "n": 100, "left_out": 0}
    return content


@pytest.fixture
def study(tmp_path):
    return StudyFolder(tmp_path / "demo")


def add(study, run_id, state, *evaluations, train_seconds=None, **changes):
    run = study.run(run_id)
    run.write_state(state, facts(run_id, **changes))
    if train_seconds is not None:
        run.write_result({**records.WHOLE, "train_seconds": train_seconds})
    for i, content in enumerate(evaluations):
        write_json(run.evaluations / f"{i}.json", content)
    return run


def test_the_columns_are_the_promised_ones_in_order(study):
    add(study, "a", "completed", record(fgsm=50.0, pgd20=40.0, cw40=41.0), train_seconds=3.5)
    assert list(load_study(study.path).columns) == COLUMNS + SITE


def test_a_row_holds_the_facts_and_the_numbers(study):
    add(study, "a", "completed", record(fgsm=50.0, pgd20=40.0, cw40=39.0, autoattack=38.0), train_seconds=3.5)
    (row,) = load_study(study.path).to_dict("records")
    expected = {"checkpoint": "best", "weights": "raw", "threat": "linf-8/255", "n_test": 100, "clean_acc": 90.0}
    expected |= {"fgsm_acc": 50.0, "pgd20_acc": 40.0, "cw40_acc": 39.0, "autoattack_acc": 38.0, "worst_case_acc": 38.0}
    expected |= {"stability": 60.0, "lipschitz": 12.5, "train_seconds": 3.5, "status": "completed"}
    assert row == facts("a").plain() | expected | dict.fromkeys(SITE, pytest.approx(math.nan, nan_ok=True))


@pytest.mark.parametrize(
    ("device", "gpus", "hardware"),
    [
        ("cuda", ["NVIDIA H100", "NVIDIA H100"], "NVIDIA H100"),
        ("cpu", ["NVIDIA H100"], "AMD EPYC"),
        (None, [], "AMD EPYC"),  # as earlier versions recorded it
    ],
)
def test_a_row_tells_on_what_the_run_was_trained(study, device, gpus, hardware):
    run = add(study, "a", "completed", record(pgd20=40.0))
    known = {"device": device, "precision": "bf16-mixed"} if device else {}
    machine = {"processor": "AMD EPYC", "cores": 2, "gpus": gpus}
    run.write_result({**records.WHOLE, "torch_version": "2.15.0+cpu", "hardware": machine, **known})
    expected = [hardware, "bf16-mixed" if device else None, "2.15.0+cpu"]
    for frame in (load_study(study.path), read_results(study.write_results())):
        assert frame.astype(object).where(frame.notna(), None)[SITE].to_numpy().tolist() == [expected]


def test_a_table_of_an_earlier_version_has_no_site(study):
    add(study, "a", "completed", record(pgd20=40.0), train_seconds=1.0)
    path = study.write_results()
    pd.read_csv(path).drop(columns=SITE).to_csv(path, index=False)
    frame = read_results(path)
    assert frame["pgd20_acc"].tolist() == [40.0]
    assert frame[SITE].isna().all(axis=None)


def test_one_row_an_evaluation(study):
    add(study, "b", "completed", record("best", pgd20=40.0), record("last", pgd20=35.0), train_seconds=1.0)
    add(study, "a", "completed", record("best", pgd20=20.0), train_seconds=2.0)
    frame = load_study(study.path)
    assert frame[["run_id", "checkpoint", "pgd20_acc", "train_seconds"]].to_numpy().tolist() == [
        ["a", "best", 20.0, 2.0],
        ["b", "best", 40.0, 1.0],
        ["b", "last", 35.0, 1.0],
    ]


@pytest.mark.parametrize("state", ["failed", "diverged"])
def test_a_run_that_came_to_nothing_has_one_row_without_numbers(study, state):
    add(study, "a", state)
    add(study, "b", "completed", record(fgsm=50.0, pgd20=40.0), train_seconds=1.0)
    frame = load_study(study.path)
    assert frame["status"].tolist() == [state, "completed"]
    row = frame.iloc[0]
    assert row[FACTS].tolist() == list(facts("a").plain().values())
    assert row[NUMBERS].isna().all()
    assert row[["checkpoint", "weights", "threat"]].isna().all()


@pytest.mark.parametrize("state", ["planned", "running", None])
def test_a_run_that_is_not_over_has_no_row(study, state):
    if state is None:  # a folder without a status
        study.run("a").path.mkdir(parents=True)
    else:
        add(study, "a", state)
    frame = load_study(study.path)
    assert frame.empty
    assert list(frame.columns) == COLUMNS + SITE


def test_what_was_not_computed_is_nan_and_never_zero(study):
    add(study, "a", "completed", record(fgsm=50.0), train_seconds=1.0)
    add(study, "b", "completed", record(pgd20=0.0), train_seconds=1.0)
    add(study, "c", "completed", record())
    frame = load_study(study.path).set_index("run_id")
    shared = {"n_test", "clean_acc"}
    computed = {
        "a": {*shared, "fgsm_acc", "worst_case_acc", "train_seconds"},
        "b": {*shared, "pgd20_acc", "worst_case_acc", "stability", "lipschitz", "train_seconds"},
        "c": shared,
    }
    for run_id, names in computed.items():
        row = frame.loc[run_id, NUMBERS]
        assert set(row.index[row.notna()]) == names
    # a measured 0 stays one
    assert frame.loc["b", "pgd20_acc"] == 0.0
    assert frame.loc["b", "worst_case_acc"] == 0.0


def test_a_lipschitz_constant_of_no_moved_image_is_nan(study):
    # every x' = x: there is no quotient
    add(study, "a", "completed", record(pgd20=40.0, lipschitz=None), train_seconds=1.0)
    np.testing.assert_array_equal(load_study(study.path)["lipschitz"].to_numpy(), [np.nan])


def test_columns_of_numbers_are_numeric_even_where_all_are_absent(study):
    add(study, "a", "failed")
    frame = load_study(study.path)
    assert [name for name in NUMBERS if not pd.api.types.is_numeric_dtype(frame[name])] == []
    assert frame[NUMBERS].isna().all(axis=None)


def test_further_attacks_get_columns_at_the_end_by_name(study):
    add(study, "a", "completed", record(pgd20=40.0, gama100=37.0), train_seconds=1.0)
    add(study, "b", "completed", record(pgd20=40.0, apgd=38.0), train_seconds=1.0)
    frame = load_study(study.path)
    assert list(frame.columns) == [*COLUMNS, "apgd_acc", "gama100_acc", *SITE]
    np.testing.assert_array_equal(frame["gama100_acc"], [37.0, np.nan])
    np.testing.assert_array_equal(frame["apgd_acc"], [np.nan, 38.0])


def test_a_torn_record_is_no_row(study):
    run = add(study, "a", "completed", record("best", pgd20=40.0), record("last", pgd20=35.0), train_seconds=1.0)
    (run.evaluations / "0.json").write_text('{"checkpoint": "best", "cle')
    assert load_study(study.path)["checkpoint"].tolist() == ["last"]


def test_a_checkpoint_from_elsewhere_has_empty_training_facts(study):
    unknown = dict.fromkeys(["objective", "recipe", "train_threat", "seed", "epochs"])
    add(study, "a", "completed", record("external", pgd20=40.0), **unknown)
    (row,) = load_study(study.path).to_dict("records")
    assert row["checkpoint"] == "external"
    assert all(pd.isna(row[name]) for name in [*unknown, "train_seconds"])


def test_results_csv_is_the_same_table(study):
    add(study, "a", "failed")
    add(study, "b", "completed", record("best", pgd20=0.0, gama100=37.0), train_seconds=0.1 + 0.2)
    path = study.write_results()
    assert path == study.path / "results.csv"
    frame = pd.read_csv(path)
    assert list(frame.columns) == [*COLUMNS, "gama100_acc", *SITE]
    loaded = load_study(study.path)
    for name in [*NUMBERS, "gama100_acc"]:
        np.testing.assert_array_equal(frame[name].to_numpy(float), loaded[name].to_numpy(float), err_msg=name)
    assert frame["depths"].tolist() == ["5-5-5", "5-5-5"]
    lines = path.read_text().splitlines()
    # empty, and neither 0 nor NaN spelt out
    known = ",".join(str(value) for value in list(facts("a").plain().values())[1:])
    assert lines[1] == f"a,{known}{',' * 14}failed,,,,"


def runs_in(path):
    return pd.read_csv(path)["run_id"].tolist()


@pytest.mark.parametrize(("passed", "rebuilt"), [(0, False), (1990, False), (2010, True), (-60, True)])
def test_a_job_rebuilds_when_twenty_times_what_a_rebuild_takes_has_passed(study, passed, rebuilt):
    add(study, "a", "failed")
    study.write_results()
    (kept,) = (path for path in study.path.iterdir() if path.name == ".rebuilt.json")
    write_json(kept, {"seconds": 100.0})
    then = time.time() - passed
    os.utime(kept, (then, then))  # of the future where the clocks of two machines differ
    add(study, "b", "failed")
    StudyFolder(study.path).refresh_results()
    assert runs_in(study.results_path) == (["a", "b"] if rebuilt else ["a"])
    # who starts the jobs always does
    study.write_results()
    assert runs_in(study.results_path) == ["a", "b"]


@pytest.mark.parametrize("content", [None, "", '{"sec', "{}", '{"seconds": "long"}', '{"seconds": null}'])
def test_a_job_rebuilds_where_it_is_not_known_what_that_takes(study, content):
    add(study, "a", "failed")
    study.write_results()
    if content is None:
        (study.path / ".rebuilt.json").unlink()
    else:
        (study.path / ".rebuilt.json").write_text(content)
    add(study, "b", "failed")
    study.refresh_results()
    assert runs_in(study.results_path) == ["a", "b"]


def test_a_job_rebuilds_a_table_that_is_gone(study):
    add(study, "a", "failed")
    study.write_results()
    write_json(study.path / ".rebuilt.json", {"seconds": 100.0})
    study.results_path.unlink()
    study.refresh_results()
    assert runs_in(study.results_path) == ["a"]


def test_the_plan_comes_back_with_its_columns(study):
    rows = [{"run_id": "a", "arch": "wrn_x", "params": 5, "macs": 6, "seed": 0}]
    study.write_plan(rows, {"considered": 48})
    assert study.plan_path.read_text().splitlines() == ["run_id,arch,params,macs,seed", "a,wrn_x,5,6,0"]
    assert study.read_plan() == [{"run_id": "a", "arch": "wrn_x", "params": "5", "macs": "6", "seed": "0"}]
    assert study.about.plain() == {"considered": 48}


def test_a_folder_without_a_plan_has_none(study):
    assert (study.read_plan(), study.about.plain(), list(study.runs())) == ([], {}, [])
    assert not study.path.exists()


def test_a_missing_study_names_what_is_there(study, tmp_path):
    for name in ("demo", "capacity"):
        add(StudyFolder(tmp_path / name), "a", "failed")
    (tmp_path / "no_study").mkdir()
    with pytest.raises(InputError, match=r"study = '.*dmeo'.*has capacity, demo$"):
        load_study(tmp_path / "dmeo")


def test_a_missing_study_beside_none_says_so(tmp_path):
    with pytest.raises(InputError, match=r"study = '.*has none"):
        load_study(str(tmp_path / "demo"))


def test_the_folder_of_all_studies_is_not_one(study, tmp_path):
    add(study, "a", "failed")
    with pytest.raises(InputError, match="with runs/ inside"):
        load_study(tmp_path)
