"""Every field of every recorded file, damaged in every way of a list: it is named and left out, the rest is shown."""

import contextlib
import copy
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from test_study_folder import facts, share
from typer.testing import CliRunner

from robust_arch.analysis.paired import compare_records
from robust_arch.analysis.reading import read_results
from robust_arch.analysis.report.study_report import write_study_report
from robust_arch.cli import app
from robust_arch.common.files import write_json
from robust_arch.errors import InputError
from robust_arch.evaluation.record import write_pair
from robust_arch.runs import StudyFolder, load_study
from robust_arch.study.merge import merge_studies
from robust_arch.study.progress import StudyProgress
from robust_arch.study.status_table import show

GONE = object()
RAW = [("raw", text) for text in ("NaN", "Infinity", "1e400")]  # what a careless writer leaves
DAMAGES = [
    None, True, -1, 0, 1e308, 10**400, "", "\x1b[31mred\n", "\ud800", [], {}, [None], {"a": 1}, GONE, *RAW,
]  # fmt: skip
N = 20
MOST = 350  # damages of a file; the list of damages and the stride through all of them share no divisor
HEAVY = 211  # so many damages share one report and merge
LOSSES = {"gradient": [0.5, 1.0], "random": [0.5, 0.6], "wins": share(90.0)}
DIAGNOSTICS = {
    "n": N,
    "norm": "linf",
    "threat": "linf-8/255",
    "seed": 0,
    "examples": N,
    "eps": {"points": [{"eps": "1", "radius": 1.0, **share(0.0)}], "classes": 10},
    "steps": [{"steps": 1, "rel_step_size": 1.0, **share(40.0)}],
    "square": {"queries": 1000, "white_box": share(40.0), "both": share(35.0), "broken": share(5.0)},
    "directions": {"rel_t": [0.0, 1.0], "cross_entropy": LOSSES, "margin": LOSSES},
    "verdicts": [{"name": "eps", "ok": True, "text": "nothing stands"}],
}
SMOOTHNESS = {
    "n": N,
    "examples": N,
    "seed": 0,
    "stages": [{"name": "stem", "from_input": 1.5, "alone": 1.5, "alone_max": 2.0, "bound": None}],
}
ABOUT = {
    "command": "python -m robust_arch.train",
    "commit": None,
    "torch_version": "2.11.0",
    "versions": {"python": "3.11", "torch": "2.11.0"},
    "hardware": {"processor": "a", "cores": 2, "gpus": ["b"], "threads": 1, "system": "linux"},
}
RESULT = {
    **ABOUT,
    "run_id": "a",
    "finished": "2026-01-01T00:00:00+00:00",
    "train_seconds": 3.5,
    "epochs": 30,
    "best_epoch": 1,
    "last_epoch": 29,
    "best_val_robust_acc": 40.0,
    "last_val_robust_acc": 39.0,
    "robust_overfitting": 1.0,
    "flags": ["collapsed: at chance level"],
    "seeds": {"seed": 0, "split_seed": 0},
    "data": {"name": "digits", "fingerprint": "f", "train": 100, "val": 20, "test": N},
    "selection_images": 20,
    "cost": {"params": 77_000, "macs": 2_000_000, "stage_params": [1, 2, 3], "stage_macs": [3, 2, 1]},
}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of warnings would take most of the time."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def evaluation(run_id: str) -> dict[str, object]:
    """A whole record of this version, with everything that can stand in one."""
    attack = {
        **share(50.0), "settings": {"class": "PGD", "loss": {"class": "CrossEntropy"}}, "eps": "8/255", "seed": 0,
        "implementation": "robust_arch 0.1.0", "seconds": 0.5, "images": False, "problems": [], "warnings": ["slow"],
    }  # fmt: skip
    cascade = {**attack, "settings": [{"attack": "fgsm"}], "stages": [{"attack": "fgsm", "attacked": 9, "standing": 5}]}
    mean = {"mean": 12.5, "n": N, "left_out": 0}
    return {
        "schema": 2, "eval_id": "e", "run_id": run_id, "checkpoint": "best", "weights": "raw", "threat": "linf-8/255",
        "eps": "8/255", "data": "digits", "examples_fingerprint": "x", "n_test": N, "invalid": [], "warnings": ["w"],
        "preflight": [{"name": "float32", "state": "warning", "detail": "d"}], "clean": share(90.0),
        "attacks": {"fgsm": attack, "cascade": cascade}, "worst_case": share(50.0), "stability": share(60.0),
        "lipschitz": mean, "lipschitz_kl": mean, "lipschitz_l2": mean, "fosc": mean, "diagnostics": DIAGNOSTICS,
        "smoothness": SMOOTHNESS, "about": {**ABOUT, "device": "cpu"},
    }  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two completed runs with everything that can be recorded, and its results.csv."""
    study = StudyFolder(tmp_path_factory.mktemp("whole") / "demo")
    rows = []
    for seed, run_id in enumerate("ab"):
        run = study.run(run_id)
        known = facts(run_id, seed=seed)
        run.write_state("completed", known, attempt=True, end="completed", notes={"launcher": "joblib"})
        run.write_result({**RESULT, "run_id": run_id})
        flags = np.arange(N) < N // 2
        write_pair(
            run.evaluations / "e.json",
            evaluation(run_id),
            {"index": np.arange(N), "clean": flags, "fgsm": flags, "cascade": flags},
        )
        rows.append({"run_id": run_id, "arch": known.arch, "params": 77_000, "macs": 2_000_000, "seed": seed})
    study.write_plan(rows, {"command": "c", "budgets": ["b"], "considered": 2, "rejected": 0, "not_sampled": 0})
    study.write_results()
    return study.path


JSON_FILES = ("runs/a/status.json", "runs/a/result.json", "runs/a/evaluations/e.json", "study.json")


def places(node: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """Every field of a JSON value, its containers included."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path] * bool(path) + [place for key, child in children for place in places(child, (*path, key))]


def damaged(content: object, place: tuple[object, ...], damage: object) -> str:
    """The JSON text with the value at the place replaced."""
    changed = copy.deepcopy(content)
    *parents, last = place
    node = changed
    for key in parents:
        node = node[key]
    if damage is GONE:
        del node[last]
    else:
        node[last] = "@@" if isinstance(damage, tuple) else damage
    text = json.dumps(changed)
    return text.replace('"@@"', damage[1]) if isinstance(damage, tuple) else text


def read_lightly(path: Path) -> None:
    """What status and results do; run b is there whatever became of run a."""
    study = StudyFolder(path)
    progress = StudyProgress.read(study)
    show(progress, every_run=True)
    assert {run.run_id for run in progress.runs} >= {"b"}
    assert progress.best is not None
    assert "b" in {row["run_id"] for row in study.rows()}


def read_all(path: Path, target: Path) -> None:
    """What results, report, merge and compare do."""
    assert "b" in set(load_study(path)["run_id"])
    page = write_study_report(path).read_text(encoding="utf-8")
    assert "seed 1, run b" in page or ">b<" in page or '"b"' in page
    left_out = StudyFolder(path)
    list(left_out.read_plan())
    for run in left_out.runs():
        assert [run.status, run.result, list(run.evaluation_records())]
    assert all(what in page for what in left_out.left_out)
    merge_studies([path], target)
    assert StudyFolder(target).run("b").state == "completed"
    records = [path / "runs" / run_id / "evaluations" / "e.json" for run_id in "ab"]
    with contextlib.suppress(InputError):
        compare_records(*records)


@pytest.mark.parametrize("name", JSON_FILES)
def test_every_field_of_every_file_may_be_damaged(whole: Path, tmp_path: Path, name: str) -> None:
    study = tmp_path / "demo"
    shutil.copytree(whole, study)
    path = study / name
    content = json.loads(path.read_text())
    cases = [(place, damage) for place in places(content) for damage in DAMAGES]
    stride = max(1, len(cases) // MOST)
    failures = []
    for number, (place, damage) in enumerate(cases[::stride]):
        path.write_text(damaged(content, place, damage))
        try:
            read_lightly(study)
            if number % HEAVY == 0:
                read_all(study, tmp_path / f"target{number}")
        except Exception as error:
            failures.append((place, str(damage)[:20], repr(error)))
    assert failures == []


@pytest.mark.parametrize("name", JSON_FILES)
@pytest.mark.parametrize("damage", ["torn", "folder", "utf-16", "not json", "list"])
def test_a_file_that_is_none_is_named(whole: Path, tmp_path: Path, name: str, damage: str) -> None:
    study = StudyFolder(tmp_path / "demo")
    shutil.copytree(whole, study.path)
    path = study.path / name
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    else:
        others = {"utf-16": content.decode().encode("utf-16"), "not json": b"\xff\x00", "list": b"[1]"}
        path.write_bytes(others.get(damage, content[: len(content) // 2]))
    read_lightly(study.path)
    read_all(study.path, tmp_path / "target")
    assert study.about is not None
    list(map(dict, study.rows()))
    assert list(study.left_out.items()) == [(name, "expected one whole JSON object")]


def test_the_commands_name_what_they_leave_out(whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logging.disable(logging.NOTSET)
    study = tmp_path / "demo"
    shutil.copytree(whole, study)
    write_json(study / "runs/a/result.json", {**RESULT, "best_val_robust_acc": 1e308})
    expected = "runs/a/result.json: best_val_robust_acc = 1e+308: expected a percentage from 0 to 100"
    shown = CliRunner().invoke(app, ["status", str(study)], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    assert f"left out: {expected}" in shown.output
    for command in ("results", "report"):
        caplog.clear()
        assert CliRunner().invoke(app, [command, str(study)]).exit_code == 0
        assert [message for message in caplog.messages if message == f"left out: {expected}"]
    assert expected in (study / "report" / "index.html").read_text()
    merged = CliRunner().invoke(app, ["merge", str(study), "--into", str(tmp_path / "target")])
    assert merged.exit_code == 0
    assert f"left out: {study}/{expected}" in merged.output
    assert not (tmp_path / "target" / "runs" / "a" / "result.json").exists()


CELLS = ["nan", "inf", "-1", "1e308", str(10**400), "", "x", "\x1b[31m", "True", "[]", '"', "\ufffd", "0x10"]
NUMBERS = ("params", "macs", "n_test", "clean_acc", "worst_case_acc", "stability", "lipschitz", "train_seconds")
EMPTY_MEANS_NOT_COMPUTED = {"params", "macs", "worst_case_acc", "stability", "lipschitz", "train_seconds"}


@pytest.mark.parametrize("column", NUMBERS)
def test_a_damaged_row_of_a_table_that_travels_alone_is_left_out(
    whole: Path, tmp_path: Path, column: str, caplog: pytest.LogCaptureFixture
) -> None:
    logging.disable(logging.NOTSET)
    header, first, second = (whole / "results.csv").read_text().splitlines()
    place = header.split(",").index(column)
    table = tmp_path / "results.csv"
    for cell in CELLS:
        cells = first.split(",")
        cells[place] = cell
        table.write_text("\n".join([header, ",".join(cells), second, ""]))
        caplog.clear()
        kept = ["a", "b"] if cell == "" and column in EMPTY_MEANS_NOT_COMPUTED else ["b"]
        assert read_results(table)["run_id"].tolist() == kept, cell
        assert ("results.csv line 2: " in caplog.text) == (kept == ["b"])
    write_study_report(tmp_path)


@pytest.mark.parametrize("column", ["run_id", "arch", "params", "macs", "seed"])
def test_a_damaged_row_of_the_plan_is_left_out(whole: Path, tmp_path: Path, column: str) -> None:
    header, first, second = (whole / "plan.csv").read_text().splitlines()
    place = header.split(",").index(column)
    study = StudyFolder(tmp_path)
    for cell in (
        "",
        "\x1b[31m",
        "\ufffd",
        *(["../b", "x/y"] if column == "run_id" else []),
        *(["nan", "1e308", "x", str(10**400)] if column not in ("run_id", "arch") else []),
    ):
        cells = first.split(",")
        cells[place] = cell
        study.plan_path.write_text("\n".join([header, ",".join(cells), second, ""]))
        study.left_out.clear()
        assert [row["run_id"] for row in study.read_plan()] == ["b"], cell
        assert [what for what, why in study.left_out.items() if why.startswith(f"{column} = ")] == ["plan.csv line 2"]
