"""A study's records in one file: what comes back, what it is counted from, and what is never in it."""

import json
from pathlib import Path

import numpy as np
import pytest
import records

from experiments.record import record
from robust_arch.analysis.report.study_report import write_study_report
from robust_arch.common.files import write_arrays, write_json
from robust_arch.errors import InputError
from robust_arch.runs import StudyFolder, load_study, open_study
from robust_arch.runs.archive import archive_of, without_paths
from robust_arch.study.merge import merge_studies
from robust_arch.study.results_table import results_tables

RECORDED = Path(__file__).parents[2] / "experiments"
ARCHIVES = sorted(RECORDED.glob("**/studies/*/runs.json"))
N = 20
HARDWARE = {"processor": "a processor", "cores": 2, "gpus": [], "threads": 1}
COMMAND = "python -m robust_arch.train data.root=/home/somebody/images seed=0"


def share(correct):
    count, n = int(correct.sum()), len(correct)
    return {"count": count, "n": n, "percent": 100 * count / n, "interval": [0.0, 100.0]}


def write_run(study, seed, draw):
    """A run with evaluations at best and last: 20 images, two attacks."""
    run = study.run(f"run{seed}")
    facts = records.FACTS.model_copy(update={"run_id": run.run_id, "seed": seed})
    run.write_state("completed", facts, attempt=True, end="completed")
    run.write_result({**records.WHOLE, "command": COMMAND, "hardware": HARDWARE, "versions": {"torch": "2.0"}})
    for checkpoint in ("best", "last"):
        arrays = {name: draw.random(N) < part for name, part in (("clean", 0.9), ("fgsm", 0.6), ("pgd20", 0.5))}
        content = {
            "schema": 2, "eval_id": f"{checkpoint}{seed}", "checkpoint": checkpoint, "weights": "raw", "n_test": N,
            "threat": "linf-0.2", "data": "digits", "examples_fingerprint": "f", "clean": share(arrays["clean"]),
            "preflight": [{"name": "gradients", "state": "ok", "detail": "none is zero"}],
            "attacks": {name: {**share(arrays[name]), "eps": "0.2", "seconds": 1.5} for name in ("fgsm", "pgd20")},
            "worst_case": {**share(arrays["fgsm"] & arrays["pgd20"]), "attacks": ["fgsm", "pgd20"]},
            "about": {"command": COMMAND, "hardware": HARDWARE, "device": "cpu"},
        }  # fmt: skip
        write_json(run.evaluations / f"{checkpoint}{seed}.json", content)
        write_arrays(run.evaluations / f"{checkpoint}{seed}.npz", {"index": np.arange(N), **arrays})


@pytest.fixture
def study(tmp_path):
    """A finished study of two runs."""
    study, draw = StudyFolder(tmp_path / "results" / "demo"), np.random.default_rng(0)
    for seed in (0, 1):
        write_run(study, seed, draw)
    write_json(study.about_path, {"command": f"{COMMAND} -m", "budgets": [], "considered": 1})
    return study


def test_a_recorded_study_reads_as_the_study_does(study, tmp_path):
    into = record(study.path, tmp_path / "studies")
    assert {path.name for path in into.iterdir()} == {"results.csv", "runs.json", "study.json"}
    assert load_study(into).equals(load_study(study.path))
    for run, other in zip(study.runs(), open_study(into).runs(), strict=True):
        for one, two in zip(run.read().evaluations, other.read().evaluations, strict=True):
            assert (one.about.hardware, one.about.device) == (two.about.hardware, two.about.device)
            assert one.attacks["fgsm"].seconds == two.attacks["fgsm"].seconds
            arrays = other.outcomes(two.eval_id)
            for name, expected in run.outcomes(one.eval_id).items():
                assert arrays[name].tolist() == expected.tolist()
            assert two.is_whole_with(arrays)


def test_its_report_names_hardware_versions_and_commands(study, tmp_path):
    into = record(study.path, tmp_path / "studies")
    before = (into / "results.csv").read_bytes()
    page = write_study_report(into).read_text()
    for words in ("a processor, 2 cores", "torch 2.0", "python -m robust_arch.train"):
        assert words in page
    assert (into / "results.csv").read_bytes() == before


def test_what_needs_the_folders_of_runs_is_told_so(study, tmp_path):
    into = record(study.path, tmp_path / "studies")
    assert [run.state for run in map(open_study(into).run, ("run0", "run1", "none"))] == ["completed"] * 2 + ["planned"]
    for sources, target in (([into], tmp_path / "new"), ([study.path], into)):
        with pytest.raises(InputError, match=r"a study's folder with runs/ inside, and not only runs\.json"):
            merge_studies(sources, target)
    assert sorted(path.name for path in into.iterdir()) == ["results.csv", "runs.json", "study.json"]
    (told,) = [line for line in results_tables(into, mixed=False, every_row=False) if isinstance(line, str)]
    assert told.startswith("read: ")


def test_accuracies_are_counted_from_the_outcomes(study, tmp_path):
    into = record(study.path, tmp_path / "studies")
    text = (into / "runs.json").read_text()
    assert '"percent"' not in text
    archive = json.loads(text)
    flipped = archive["runs"]["run0"]["evaluations"]["0"]["outcomes"]
    flipped["pgd20"] = flipped["clean"]
    (into / "runs.json").write_text(json.dumps(archive))
    run = next(open_study(into).runs())
    assert run.evaluation("best0").attacks["pgd20"].count == run.evaluation("best0").clean.count


def test_no_path_of_the_machine_is_recorded(study, tmp_path):
    into = record(study.path, tmp_path / "studies")
    for name in ("runs.json", "study.json"):
        text = (into / name).read_text()
        assert "somebody" not in text
        assert "data.root=<path> seed=0" in text
    assert str(tmp_path) not in (into / "runs.json").read_text()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data.root=/home/me/cifar seed=0", "data.root=<path> seed=0"),
        ("'data.root=/home/me/my images' seed=0", "'data.root=<path>' seed=0"),
        ("--config-dir ~/x/conf", "--config-dir <path>"),
        (r"data.root=C:\data\x", "data.root=<path>"),
        ("[/x/y,/z]", "[<path>,<path>]"),
        ("linf-8/255 data/cifar10 https://a.org/b 1/3", "linf-8/255 data/cifar10 https://a.org/b 1/3"),
    ],
)
def test_absolute_paths_are_taken_out_of_texts(text, expected):
    assert without_paths({"a": [text, 1]}) == {"a": [expected, 1]}


def test_outcomes_that_do_not_give_the_accuracies_are_not_recorded(study):
    run = study.run("run1")
    arrays = run.outcomes("last1")
    write_arrays(run.evaluations / "last1.npz", {**arrays, "fgsm": ~arrays["fgsm"]})
    with pytest.raises(InputError, match=r"run1/last1.*expected the accuracies of its outcomes"):
        archive_of([each.read() for each in study.runs()])
    (run.evaluations / "last1.npz").unlink()
    with pytest.raises(InputError, match=r"run1/last1.*the outcome of every image"):
        archive_of([each.read() for each in study.runs()])


@pytest.mark.parametrize("damage", ["not json", '{"common": 1}', '{"common": {}, "images": {}, "runs": {"a": {}}}'])
def test_a_damaged_archive_is_named_and_left_out(tmp_path, damage):
    (tmp_path / "runs.json").write_text(damage)
    study = open_study(tmp_path)
    assert list(study.runs()) == []
    assert any(name.startswith("runs.json") for name in study.left_out)


def test_outcomes_of_another_length_are_left_out(study, tmp_path):
    into = record(study.path, tmp_path / "studies")
    archive = json.loads((into / "runs.json").read_text())
    archive["runs"]["run0"]["evaluations"]["0"]["outcomes"]["clean"] = "AAAA"
    archive["common"]["evaluations"]["0"]["n_test"] = 200
    (into / "runs.json").write_text(json.dumps(archive))
    folder = open_study(into)
    assert list(folder.runs()) == []
    assert set(folder.left_out) == {"runs.json run run0", "runs.json run run1"}


@pytest.mark.parametrize("path", ARCHIVES, ids=[path.parent.name for path in ARCHIVES])
def test_recorded_results_are_those_of_the_recorded_outcomes(path, tmp_path):
    study = open_study(path.parent)
    recomputed = tmp_path / "results.csv"
    rows = load_study(study.path)
    rows.astype(dict.fromkeys(("params", "macs", "seed", "epochs", "n_test"), "Int64")).to_csv(recomputed, index=False)
    assert recomputed.read_text() == study.results_path.read_text()
    for run in study.runs():
        for evaluation in run.read().evaluations:
            outcomes = run.outcomes(evaluation.eval_id)
            worst = np.logical_and.reduce([outcomes[name] for name in evaluation.attacks])
            own = (rows["run_id"] == run.run_id) & (rows["checkpoint"] == evaluation.checkpoint)
            (row,) = rows[own & (rows["threat"] == evaluation.threat)].to_dict("records")
            expected = {f"{name}_acc": 100 * outcomes[name].mean() for name in ("clean", *evaluation.attacks)}
            for name, value in (expected | {"worst_case_acc": 100 * worst.mean()}).items():
                assert row[name] == pytest.approx(value)


def test_there_are_recorded_archives():
    assert {path.parent.name for path in ARCHIVES} >= {"cifar10_pilot", "cifar10_pilot_1000"}
