"""Successive halving: the search over runs whose numbers are given, against a table by hand; then the command."""

import csv

import pytest
import torch
from commands import SMALL, call
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from records import WHOLE

from robust_arch.common.paths import conf_dir
from robust_arch.configuration.resolvers import register_resolvers
from robust_arch.errors import InputError
from robust_arch.execution.run import Run
from robust_arch.runs import StudyFolder
from robust_arch.study import halving
from robust_arch.study.plan_table import plan_tables, plans_from_command

FIRST = {  # held-out robust accuracy at the first rung by last width and seed; None: diverges
    4: {0: 10.0, 1: 20.0},  # mean 15
    8: {0: 40.0, 1: 20.0},  # mean 30
    12: {0: 33.0, 1: 21.0, 7: 15.0},  # mean 27, over three seeds 23
    16: {0: 28.0, 1: 24.0, 7: 25.0},  # mean 26, over three seeds 25.7
    20: {0: 90.0, 1: None},
    24: {0: 5.0, 1: 5.0},
}
LAST = {8: {0: 50.0, 1: 52.0}, 12: {0: 1.0, 1: 1.0}, 16: {0: 60.0, 1: 58.0}}
GRID = (
    "hydra/sweeper=halving", "hydra.sweeper.rungs=[2,4]", "study.name=tiny", "search.space.depths=[[1],[1],[1]]",
    "search.space.widths=[[4],[4],[4,8,12,16,20,24]]", "search.seeds=[0,1]",
)  # fmt: skip
SWEPT = "recipe.batch_size=16,32"
TIES = ("hydra.sweeper.tie_points=2", "hydra.sweeper.tie_seeds=[7]")


class Runs:
    """Stands for launcher and training: records the number that the table gives, and counts; stops after `stop`."""

    def __init__(self, tables, stop=None, error=None):
        self.tables, self.stop, self.error, self.done, self.asked = tables, stop, error, [], []

    def __call__(self, launcher, runs, called="runs"):
        self.asked.append(list(runs))
        self.called = called
        for planned in runs:
            if planned.run.is_done() or planned.run.folder.state == "diverged":
                continue
            if len(self.done) == self.stop:
                if self.error is not None:
                    raise self.error
                return
            self.record(planned.run)

    def record(self, run):
        settings, folder = run.settings, run.folder
        value = self.tables[settings.trainer.max_epochs][settings.spec.widths[-1]][settings.seed]
        self.done.append((settings.trainer.max_epochs, settings.spec.widths[-1], settings.seed))
        if value is not None:
            folder.write_result({**WHOLE, "best_val_robust_acc": value})
            folder.checkpoints.mkdir(parents=True)
            for which in ("best", "last"):
                torch.save({}, folder.checkpoint(which))
        folder.write_state("diverged" if value is None else "completed", run.facts)


@pytest.fixture
def search(tmp_path, monkeypatch):
    """A function that does the search over given runs."""
    # no networks here, so nothing to evaluate
    monkeypatch.setattr(Run, "is_done", lambda run: run.folder.state == "completed" and run.folder.trained)

    def start(runs, *overrides):
        monkeypatch.setattr(halving, "launch_until_settled", runs)
        register_resolvers()
        GlobalHydra.instance().clear()
        arguments = [*SMALL, *GRID, f"results_dir={tmp_path}", *overrides]
        task = [argument for argument in arguments if not argument.startswith("hydra")]
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            single = [argument for argument in arguments if argument != SWEPT]  # as Hydra composes for a sweeper
            config = compose("train", overrides=single, return_hydra_config=True)
            halving.halve(config, GlobalHydra.instance().config_loader(), None, task)

    return start


def rungs(folder):
    with (folder / "tiny" / "rungs.csv").open() as handle:
        return list(csv.DictReader(handle))


def promoted(folder):
    return {int(row["arch"].split("-")[-1]) for row in rungs(folder) if row["promoted"] == "true"}


def test_the_best_third_is_trained_on_and_who_diverged_is_not(search, tmp_path):
    runs = Runs({2: FIRST, 4: LAST})
    search(runs)
    assert promoted(tmp_path) == {8, 12}
    assert sorted(job for job in runs.done if job[0] == 4) == [(4, 8, 0), (4, 8, 1), (4, 12, 0), (4, 12, 1)]
    assert len(runs.done) == 16


def test_further_seeds_of_the_tied_alone_turn_the_order(search, tmp_path):
    runs = Runs({2: FIRST, 4: LAST})
    search(runs, *TIES)
    assert [job for job in runs.done if job[2] == 7] == [(2, 12, 7), (2, 16, 7)]
    assert promoted(tmp_path) == {8, 16}
    first = {int(row["arch"].split("-")[-1]): row for row in rungs(tmp_path) if row["rung"] == "1"}
    assert {width: int(row["rank"]) for width, row in first.items()} == {8: 1, 16: 2, 12: 3, 4: 4, 24: 5, 20: 6}
    assert float(first[12]["tie_mean"]) == 23.0
    assert first[8]["tie_mean"] == ""
    assert (first[20]["mean_held_out_robust_acc"], first[20]["promoted"]) == ("", "false")
    assert float(first[8]["mean_held_out_robust_acc"]) == 30.0


def test_every_run_of_every_rung_is_recorded(search, tmp_path):
    search(Runs({2: FIRST, 4: LAST}), *TIES)
    rows = rungs(tmp_path)
    assert [(row["rung"], row["resource"], row["value"]) for row in rows].count(("2", "trainer.max_epochs", "4")) == 4
    assert len(rows) == 12 + 2 + 4
    assert {row["state"] for row in rows} == {"completed", "diverged"}
    last = {row["arch"].split("-")[-1]: (row["rank"], row["promoted"]) for row in rows if row["rung"] == "2"}
    assert last == {"16": ("1", ""), "8": ("2", "")}
    plan = StudyFolder(tmp_path / "tiny").read_plan()
    assert [row["run_id"] for row in plan] == [row["run_id"] for row in rows]
    assert StudyFolder(tmp_path / "tiny").about.halving["rungs"] == [2, 4]


@pytest.mark.parametrize("stop", [5, 13, 16])  # in the first rung, among the ties, in the last rung
def test_cut_off_in_the_middle_of_a_rung_it_goes_on_and_decides_the_same(search, tmp_path, stop):
    search(Runs({2: FIRST, 4: LAST}), *TIES, f"results_dir={tmp_path}/undisturbed")
    with pytest.raises(KeyboardInterrupt):
        search(Runs({2: FIRST, 4: LAST}, stop, KeyboardInterrupt()), *TIES)
    again = Runs({2: FIRST, 4: LAST})
    search(again, *TIES)
    assert len(again.done) == 18 - stop
    assert rungs(tmp_path) == rungs(tmp_path / "undisturbed")


def test_the_best_run_of_the_last_rung_is_evaluated_as_a_finalist(search):
    runs = Runs({2: FIRST, 4: LAST})
    search(runs, *TIES, "study.finalists={top: 1, attacks: [cw40], n: 40}")
    (finalist,) = runs.asked[-1]
    assert runs.called == "finalists"
    assert (finalist.run.settings.spec.widths[-1], finalist.run.settings.seed) == (16, 0)  # 60, the most at 4 epochs
    assert finalist.run.settings.trainer.max_epochs == 4
    assert [named.name for named in finalist.run.settings.evaluation.attacks] == ["cw40"]
    assert "evaluate.attacks=[cw40]" in finalist.overrides


def test_a_run_that_is_neither_done_nor_failed_stops_the_search(search, tmp_path):
    with pytest.raises(SystemExit) as exit_:
        search(Runs({2: FIRST, 4: LAST}, stop=5))
    assert exit_.value.code == 1
    assert not (tmp_path / "tiny" / "rungs.csv").exists()


def test_where_every_architecture_failed_it_ends_with_an_error(search, tmp_path):
    failed = {width: {0: 50.0, 1: None} for width in FIRST}
    with pytest.raises(SystemExit) as exit_:
        search(Runs({2: failed}))
    assert str(exit_.value.code).startswith("error: rung 1")
    assert {row["promoted"] for row in rungs(tmp_path)} == {"false"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("hydra.sweeper.rungs=[4,2]", r"hydra\.sweeper\.rungs = \[4, 2\]"),
        ("hydra.sweeper.tie_seeds=[1]", r"hydra\.sweeper\.tie_seeds = \[1\]: expected other seeds"),
        ("+hydra.sweeper.foo=1", r"hydra\.sweeper\.foo: unknown key.*tie_seeds"),
        (SWEPT, "one value for each key"),
        ("search.budget.params=100", "none of the 6 points"),
        # lower rungs evaluate under no attack
        ("evaluate.attacks=[nothing]", r"evaluate\.attacks = 'nothing'"),
    ],
)
def test_the_plan_refuses_what_the_search_refuses(override, message):
    with pytest.raises(InputError, match=message):
        plans_from_command([*SMALL, *GRID, "hydra.sweeper.rungs=[1,4]", override])


def test_the_plan_shows_the_rungs_and_their_cost():
    (plan,) = plans_from_command([*SMALL, *GRID, "hydra.sweeper.rungs=[1,4]"])
    assert {planned.run.settings.trainer.max_epochs for planned in plan.runs} == {1}
    schedule = next(table for table in plan_tables(plan) if "rungs" in str(getattr(table, "title", "")))
    # 6 architectures and 2 seeds: 12 runs of 1 epoch, then 2 architectures, 4 runs of 4; the grid has 12 runs of 4
    assert "28 in all, 58% of the full grid's 48" in str(schedule.title)
    assert [list(column.cells) for column in schedule.columns][3:] == [["12", "4"], ["12", "16"]]


def test_a_part_of_the_data_can_be_the_resource():
    arguments = [*SMALL, *GRID, "hydra.sweeper.resource=trainer.limit_train_batches", "hydra.sweeper.rungs=[1,7]"]
    (plan,) = plans_from_command(arguments)
    assert {planned.run.settings.trainer.limit_train_batches for planned in plan.runs} == {1}
    assert {planned.run.settings.trainer.max_epochs for planned in plan.runs} == {2}  # as SMALL says


def test_the_command_ends_with_the_last_rung_evaluated_and_again_it_does_nothing(tmp_path):
    arguments = (
        "robust_arch.train", "-m", *SMALL, "hydra/sweeper=halving", "hydra.sweeper.rungs=[1,2]", "hydra.sweeper.eta=2",
        "study.name=tiny", "search.space.depths=[[1],[1],[1]]", "search.space.widths=[[4],[4],[4,8]]",
    )  # fmt: skip
    process = call(*arguments, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert "1 of 2 architectures promoted" in process.stderr
    study = StudyFolder(tmp_path / "results" / "tiny")
    rows = rungs(tmp_path / "results")
    measured = {row["run_id"]: float(row["held_out_robust_acc"]) for row in rows}
    assert measured == {run.run_id: run.result.best_val_robust_acc for run in study.runs()}
    attacked = {run.run_id for run in study.runs() if any(record.attacks for record in run.evaluation_records())}
    assert attacked == {row["run_id"] for row in rows if row["rung"] == "2"}
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.ckpt")}
    again = call(*arguments, cwd=tmp_path)
    assert again.returncode == 0
    assert files == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.ckpt")}
    assert rungs(tmp_path / "results") == rows
