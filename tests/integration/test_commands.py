"""The tools around a study, on a finished one."""

import json
import shutil
from pathlib import Path

import pytest
from commands import SMALL, call
from typer.testing import CliRunner

from robust_arch.cli import app
from robust_arch.configuration.settings import read_settings
from robust_arch.errors import InputError
from robust_arch.evaluate import evaluate
from robust_arch.execution.execute import execute
from robust_arch.execution.run import Run
from robust_arch.runs import StudyFolder, load_study

PLAN = (
    "search.space.depths=[[1],[1],[1]]",
    "search.space.widths=[[4,8],[8],[8,16]]",
    "search.budget.params=3100",
    "search.budget.tolerance=0.05",
    "study.name=planned",
)


RECORDED = Path(__file__).parents[2] / "experiments" / "studies"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The folder of a study of two runs, one of them failed."""
    folder = tmp_path_factory.mktemp("study")
    done = call(
        "robust_arch.train", "-m", *SMALL, "study.name=small", "seed=0,1", "recipe.gradient_clip=null", cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return folder / "results" / "small"


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_help_lists_only_what_works():
    result = invoke("--help")
    assert result.exit_code == 0
    for name in ("plan", "status", "results", "report", "figures", "claims", "dashboard", "merge"):
        assert name in result.output
        helped = invoke(name, "--help")
        assert helped.exit_code == 0
        assert f"robust-arch {name}" in helped.output  # an example


def test_plan_shows_members_and_what_was_rejected(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    result = invoke("plan", *PLAN)
    assert result.exit_code == 0, result.output
    # by hand: 4-8-8 has 144 + 824 + 920 + 1,248 + 106 = 3,242 parameters, 8-8-8 4,650, 4-8-16 5,722, 8-8-16 7,130
    assert "wide_resnet-d1-1-1-w4-8-8" in result.output
    assert "3,242" in result.output
    assert "3 of 4 rejected" in result.output
    for reason in ("params 50.0% over", "params 84.6% over", "params 130.0% over"):
        assert reason in result.output
    assert not list(tmp_path.iterdir())


def test_plan_takes_what_train_takes(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "own.yaml").write_text(
        "# @package _global_\n"
        "defaults:\n  - override /hydra/sweeper: budget\n"
        "search:\n  space:\n    depths: [[1], [1], [1]]\n    widths: [[4], [4], [4, 8]]\n"
    )
    result = invoke("plan", "-m", "--config-dir", tmp_path, "study=own", "threat.eps=0.1,0.2")
    assert result.exit_code == 0, result.output
    assert result.output.count("study own: 2 runs inside no budget") == 2


def test_a_seed_can_be_given_without_an_axis_of_seeds(composed):
    from robust_arch.study.plan import plan_study

    grid = ("search.space.depths=[[1],[1],[1]]", "search.space.widths=[[4],[4,8],[8]]")
    for overrides, seeds in (((), {0}), (("seed=3",), {3}), (("search.seeds=[1,2]",), {1, 2})):
        plan = plan_study(composed(*grid, *overrides), [])
        assert {planned.run.settings.seed for planned in plan.runs} == seeds
        assert len(plan.runs) == 2 * len(seeds)


def test_status_and_results_name_every_run(study, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    shown = invoke("status", study)
    assert shown.exit_code == 0
    listed = invoke("results", study)
    assert listed.exit_code == 0
    for run in StudyFolder(study).runs():
        assert run.run_id in shown.output
        assert run.run_id in listed.output
    assert "2 completed" in shown.output


def test_report_by_name_and_by_path(study):
    by_path = invoke("report", study)
    assert by_path.exit_code == 0, by_path.output
    by_name = invoke("report", "small", "--results-dir", study.parent)
    assert by_name.output == by_path.output
    page = (study / "report" / "index.html").read_text()
    for run_id in load_study(study)["arch"].unique():
        assert run_id in page
    assert 'src="http' not in page


def test_the_evaluate_command_says_what_it_found(study, tmp_path):
    copied = tmp_path / "results" / "small"
    shutil.copytree(study, copied)
    run = next(StudyFolder(copied).runs())
    done = call("robust_arch.evaluate", f"checkpoint={run.checkpoint('last')}", "evaluate.n=20", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "cw40" in done.stderr
    assert f"recorded in {run.evaluations}" in done.stderr


def test_a_training_that_is_not_finished_is_not_evaluated(study, tmp_path, composed):
    # its weights will change, and a record would be taken for one of the final ones
    copied = tmp_path / "results" / "small"
    shutil.copytree(study, copied)
    run = next(StudyFolder(copied).runs())
    (run.path / "result.json").unlink()
    with pytest.raises(InputError, match=r"checkpoint = .*finished training"):
        evaluate(composed(f"checkpoint={run.checkpoint('last')}", config="evaluate", small=False))


def test_evaluate_says_what_is_wrong_with_its_checkpoint(tmp_path, composed):
    with pytest.raises(InputError, match=r"checkpoint = None"):
        evaluate(composed(config="evaluate", small=False))
    with pytest.raises(InputError, match=r"checkpoint = .*no such file"):
        evaluate(composed(f"checkpoint={tmp_path}/none.ckpt", config="evaluate", small=False))
    assert not (tmp_path / "results").exists()


def test_a_merged_run_is_done_and_its_weights_are_elsewhere(tmp_path, composed):
    def run(*overrides):
        return Run.load(read_settings(composed("trainer.max_epochs=1", *overrides)))

    asked, more = "evaluate.attacks=[fgsm]", "evaluate.attacks=[fgsm,cw40]"
    first = run(asked)
    assert execute(first) == "completed"
    merged = tmp_path / "merged" / "single"
    done = invoke("merge", first.folder.path.parents[1], "--into", merged)
    assert done.exit_code == 0, done.output
    there = f"results_dir={merged.parent}"
    assert run(there, asked).is_done()
    assert not run(there, more).is_done()
    before = {path: path.read_bytes() for path in merged.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=r"checkpoint = .*its weights are on"):
        run(there, more).folder.require_weights()
    checkpoint = run(there).folder.checkpoint("best")
    with pytest.raises(InputError, match=r"checkpoint = .*its weights are on"):
        evaluate(composed(f"checkpoint={checkpoint}", config="evaluate", small=False))
    assert before == {path: path.read_bytes() for path in merged.rglob("*") if path.is_file()}


def test_of_a_long_table_a_hundred_rows_are_printed(tmp_path, study, monkeypatch):
    monkeypatch.setenv("COLUMNS", "240")
    copied = StudyFolder(tmp_path / "many")
    (run, *_) = StudyFolder(study).runs()
    for number in range(60):  # two rows each, of the checkpoints best and last
        name = f"run{number:02}"
        shutil.copytree(run.path / "evaluations", copied.run(name).evaluations)
        status = json.loads((run.path / "status.json").read_text())
        status["run"] = {**status["run"], "run_id": name}
        (copied.run(name).path / "status.json").write_text(json.dumps(status))
    short, whole = (invoke("results", copied.path, "--mixed", *options).output for options in ((), ("--all",)))
    assert (short.count("run"), whole.count("run")) == (100 + 1, 120 + 1)  # and the column's name
    assert "20 more rows; --all prints them" in short
    assert len(load_study(copied.path)) == len(copied.results_path.read_text().splitlines()) - 1 == 120


@pytest.fixture
def table(tmp_path):
    """The folder of a results.csv and a plan.csv that travel without their records."""
    shutil.copytree(RECORDED / "budget", tmp_path / "budget", ignore=shutil.ignore_patterns("*.json"))
    return tmp_path / "budget"


@pytest.mark.parametrize("name", ["report", "results"])
def test_a_table_without_records_is_shown_and_stays_as_it_is(table, name, monkeypatch):
    monkeypatch.chdir(table.parent)
    before = {path.name: path.read_bytes() for path in table.iterdir()}
    for given in (table, table / "results.csv", "budget"):
        result = invoke(name, given)
        assert result.exit_code == 0, result.output
    assert {path.name: path.read_bytes() for path in table.iterdir() if path.is_file()} == before
    if name == "report":
        page = (table / "report" / "index.html").read_text()
        assert "of 63 planned runs 63 done" in page
        assert "wide_resnet-d2-2-2-w12-26-20" in page
    else:
        assert "read: " in result.output


def test_what_needs_the_records_says_so(table, tmp_path):
    for arguments in (("status", table), ("merge", table, "--into", tmp_path / "merged")):
        result = invoke(*arguments)
        assert result.exit_code == 1
        assert "this one has only results.csv" in str(result.exception)
    with pytest.raises(InputError, match=r"this one has only results\.csv"):
        load_study(table)


def test_the_report_of_a_studys_table_is_the_studys(study, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(study, folder)
    pages = []
    for given in (folder, folder / "results.csv"):
        assert invoke("report", given).exit_code == 0
        pages.append((folder / "report" / "index.html").read_text())
    assert pages[0] == pages[1]
    (folder / "other.csv").write_text((folder / "results.csv").read_text())
    refused = invoke("report", folder / "other.csv")
    assert refused.exit_code == 1
    assert "its results.csv" in str(refused.exception)
    assert (folder / "report" / "index.html").read_text() == pages[0]
