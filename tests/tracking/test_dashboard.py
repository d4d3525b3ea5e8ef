"""The dashboard of a study, against what a run really logs; nothing here has an account or a network."""

import json
import shutil
import sys
from types import SimpleNamespace

import pytest
from commands import SMALL, call
from offline_wandb import OfflineRun
from typer.testing import CliRunner

from robust_arch.cli import app
from robust_arch.configuration.settings import read_settings
from robust_arch.execution.execute import execute
from robust_arch.execution.run import Run

workspaces = pytest.importorskip("wandb_workspaces.workspaces")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a study of one run, with logger=csv."""
    folder = tmp_path_factory.mktemp("finished")
    done = call("robust_arch.train", *SMALL, "study.name=mine", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "results" / "mine"


@pytest.fixture
def changed(finished, tmp_path):
    """A function that copies the study with another text in the file of that name; returns the copy."""

    def make(name, old, new):
        study = shutil.copytree(finished, tmp_path / "mine")
        (path,) = study.glob(f"runs/*/{name}")
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
        return study

    return make


@pytest.fixture
def study(changed):
    """The study as if it had been logged: its records are all that a dashboard is made of."""
    return changed("config.yaml", "name: csv", "name: wandb\n  mode: offline\n  project: theirs")


def invoke(*arguments):
    return CliRunner().invoke(app, ["dashboard", *(str(argument) for argument in arguments)])


def definition(study):
    result = invoke(study)
    assert result.exit_code == 0, result.output
    path = study / "report" / "dashboard.json"
    assert str(path) in result.output
    return json.loads(path.read_text())


def panels_of(content):
    return [panel for part in content["spec"]["section"]["panelBankConfig"]["sections"] for panel in part["panels"]]


def names_in(panel):
    """The columns that a panel names, as (section, name), read from the wire format of wandb's own page."""
    config, kind = panel["config"], panel["viewType"]
    if kind == "Run History Line Plot":
        found = [("history", name) for name in (config["xAxis"], *config["metrics"])]
    elif kind == "Bar Chart":
        found = [("summary", name) for name in config["metrics"]]
    elif kind == "Scatter Plot":
        found = [tuple(config[axis].split(":", 1)) for axis in ("xAxis", "yAxis", "zAxis")]
    else:
        assert kind == "Parallel Coordinates Plot"
        found = [tuple(column["accessor"].split(":", 1)) for column in config["columns"]]
    return [*found, *([("group", config["groupBy"])] if "groupBy" in config else [])]


def value_in(offline, section, name):
    if section in ("config", "group"):
        return offline.config[name.removesuffix(".value")]
    return offline.summary[name] if section == "summary" else offline.history[-1][name]


def test_whatever_the_dashboard_names_a_run_has_logged(composed):
    run = Run.load(read_settings(composed("logger=wandb", "study.name=mine")))
    execute(run)
    offline = OfflineRun(*(run.folder.path / "wandb").glob("offline-run-*"))
    content = definition(run.study.path)
    assert content["project"] == "robust-arch"
    for panel in panels_of(content):
        for section, name in names_in(panel):
            value = value_in(offline, section, name)
            assert isinstance(value, str if section == "group" else int | float), (panel, name)

    (runs,) = content["spec"]["section"]["runSets"]
    filters = {(each["key"]["section"], each["key"]["name"]): each["value"] for each in runs["filters"]["filters"]}
    assert filters.pop(("run", "group")) == offline.group == "mine"
    assert {name: value for (_, name), value in filters.items()} == {
        "objective_name": "sat",
        "recipe_name": "digits",
        "data_name": "digits",
        "train_threat": "linf-0.2",
        "epochs": 2,
    }
    assert all(offline.config[name] == value for (_, name), value in filters.items())
    for column in runs["runFeed"]["columnOrder"][1:]:
        value_in(offline, *column.split(":", 1))
    (best,) = (record for record in run.folder.evaluation_records() if record.checkpoint == "best")
    assert offline.summary[runs["sort"]["keys"][0]["key"]["name"]] == best.worst_case.percent


def test_an_evaluation_that_is_not_logged_is_not_shown(study):
    once = definition(study)
    for path in study.glob("runs/*/evaluations/*.json"):
        record = json.loads(path.read_text())
        for key, value in (("threat", "linf-0.1"), ("data", "others")):
            other = {**record, key: value, "n_test": 30}
            path.with_name(f"0{key}-{path.name}").write_text(json.dumps(other))  # read before the logged ones
    assert definition(study) == once


def test_the_same_study_gives_the_same_file(study, tmp_path):
    once = definition(study)
    other = tmp_path / "elsewhere" / "page.json"
    result = invoke(study, "--entity", "team", "--project", "ours", "--out", other)
    assert result.exit_code == 0, result.output
    assert json.loads(other.read_text()) == once | {"entity": "team", "project": "ours"}


def test_publishing_saves_the_page_and_says_where_it_is(study, monkeypatch):
    saved = []

    def save(page):
        saved.append((page.entity, page.project, page.name))
        return SimpleNamespace(url="https://wandb.example/me/theirs?nw=abc")

    monkeypatch.setattr(workspaces.Workspace, "save", save)
    result = invoke(study, "--publish", "--entity", "me")
    assert result.exit_code == 0, result.output
    assert "published: https://wandb.example/me/theirs?nw=abc" in result.output
    assert saved == [("me", "theirs", "robust-arch mine")]


def recorded(study):
    return {path: path.read_bytes() for path in sorted(study.rglob("*")) if path.is_file()}


def test_without_an_account_publishing_says_so_and_touches_no_record(study, monkeypatch, tmp_path):
    for name in ("HOME", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    before = recorded(study)
    result = invoke(study, "--publish")
    assert result.exit_code == 1
    assert result.output.count("error: ") == 1
    assert "--publish: wandb did not accept the dashboard" in result.output
    assert "wandb login" in result.output
    after = recorded(study)
    assert after.pop(study / "report" / "dashboard.json")
    assert after == before


def test_a_study_that_was_not_logged_has_no_dashboard(finished):
    result = invoke(finished)
    assert result.exit_code == 1
    assert "these were not (logger=csv)" in result.output


def test_a_name_that_filters_misread_is_refused(changed):
    result = invoke(changed("status.json", '"study": "mine"', '"study": "a=b"'))
    assert result.exit_code == 1
    assert "study = 'a=b'" in result.output


@pytest.mark.parametrize("made", [(), ("runs",)])
def test_a_folder_without_results(tmp_path, made):
    folder = tmp_path / "empty"
    folder.joinpath(*made).mkdir(parents=True)
    result = invoke(folder)
    assert result.exit_code == 1
    assert result.output.startswith(f"error: study = {str(folder)!r}")


def test_without_the_package_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "robust_arch.tracking.panels", raising=False)
    monkeypatch.delattr("robust_arch.tracking.panels", raising=False)
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    result = invoke(tmp_path)
    assert result.exit_code == 1
    assert "pip install 'robust-arch[dashboard]'" in result.output
    assert not list(tmp_path.iterdir())
