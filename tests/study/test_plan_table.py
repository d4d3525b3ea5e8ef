"""What `robust-arch plan` tells of cost: memory, time once something is recorded, and what a sample leaves out."""

import json
import re
import shutil

import pytest
from commands import SMALL
from composition import configuration
from typer.testing import CliRunner

from robust_arch.architectures import ArchSpec, activation_bytes, cost
from robust_arch.cli import app
from robust_arch.errors import InputError
from robust_arch.execution.execute import execute
from robust_arch.study.plan import plan_study
from robust_arch.study.plan_table import plan_tables

SPACE = (
    "study.name=timed",
    "search.space.depths=[[1],[1],[1]]",
    "search.space.widths=[[4,8],[8],[8,16]]",
    "evaluate.attacks=[]",
    "evaluate.n=20",
    "evaluate.checkpoints=[last]",
)


def seconds_by_hand(spec, epochs=2):
    return 5e-3 * epochs * cost(spec, 10, (1, 8, 8)).macs


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The results folder of a plan of four runs, two of them done; their times are set to what a known rate gives."""
    folder = tmp_path_factory.mktemp("trained")
    for planned in plan_study(configuration(folder, *SMALL, *SPACE), []).runs[:2]:
        assert execute(planned.run) == "completed"
        path = planned.run.folder.path / "result.json"
        seconds = seconds_by_hand(planned.run.settings.spec)
        path.write_text(json.dumps({**json.loads(path.read_text()), "train_seconds": seconds}))
    return folder / "results"


@pytest.fixture
def recorded(composed, trained, tmp_path):
    """That plan, on a copy of its records."""
    shutil.copytree(trained, tmp_path / "results")
    return plan_study(composed(*SPACE), [])


def shown(tables):
    """The training times of the table, in seconds, and the line under it."""
    (times,) = ([*column.cells] for column in tables[0].columns if column.header == "training time")
    return times, tables[1]


def in_seconds(text):
    hours, minutes, seconds = (int(part) for part in text.split(":"))
    return 3600 * hours + 60 * minutes + seconds


def test_times_follow_from_recorded_runs(recorded):
    times, line = shown(plan_tables(recorded))
    expected = [seconds_by_hand(planned.run.settings.spec) for planned in recorded.runs]
    assert [in_seconds(time) for time in times] == pytest.approx(expected, abs=0.5)
    assert line.startswith("2 runs left to train: ")
    total = re.search(r"\d+:\d\d:\d\d", line)[0]
    assert in_seconds(total) == pytest.approx(sum(expected[2:]), abs=0.5)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("status.json", {"host": "elsewhere"}),
        ("result.json", {"hardware": {"processor": "another", "cores": 2, "gpus": [], "system": "Linux"}}),
    ],
)
def test_records_of_another_machine_tell_no_times(recorded, name, change):
    for planned in recorded.runs[:2]:
        path = planned.run.folder.path / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    times, line = shown(plan_tables(recorded))
    assert times == ["-"] * 4
    assert line == "2 runs left to train; times appear once a run of the study is recorded on this machine"


@pytest.mark.parametrize(
    "change",
    [
        "trainer.threads=2", "trainer.fold=false", "objective=natural", "selection.images=10", "recipe.batch_size=16",
        "trainer.limit_train_batches=2", "trainer.precision=bf16-mixed",
    ],
)  # fmt: skip
def test_records_of_other_settings_tell_no_times(recorded, composed, change):
    times, _ = shown(plan_tables(plan_study(composed(*SPACE, change), [])))
    assert times == ["-"] * 4


def test_records_of_fewer_epochs_tell_times_too(recorded, composed):
    longer = plan_study(composed(*SPACE, "trainer.max_epochs=7"), [])
    times, _ = shown(plan_tables(longer))
    expected = [seconds_by_hand(planned.run.settings.spec, epochs=7) for planned in longer.runs]
    assert [in_seconds(time) for time in times] == pytest.approx(expected, abs=0.5)


HOSTILE = {
    "objective": {
        "_target_": "pathlib.Path.write_text",
        "_args_": [{"_target_": "pathlib.Path", "_args_": ["MADE"]}, "x"],
    },
    "data": {"_target_": "setuptools._distutils.spawn.spawn", "cmd": ["touch", "MADE"]},
    "trainer": {"_target_": "setuptools._distutils.spawn.spawn", "cmd": ["touch", "MADE"]},
}


@pytest.mark.parametrize("group", HOSTILE)
def test_a_recorded_configuration_is_not_built(group, recorded, tmp_path):
    # records may come from another machine, by merge or by copying
    made = tmp_path / "made"
    for planned in recorded.runs[:2]:
        folder = planned.run.folder
        text = json.dumps({**folder.recorded_config, group: HOSTILE[group]})  # JSON is YAML
        folder.config.write_text(text.replace("MADE", str(made)))
    times, _ = shown(plan_tables(recorded))
    assert not made.exists()
    # the data are known by their fingerprint, whatever the configuration says of them
    assert (times == ["-"] * 4) is (group != "data")


def test_a_finished_plan_leaves_nothing(recorded, composed):
    done = plan_study(composed(*SPACE, "search.space.widths=[[4],[8],[8,16]]"), [])
    assert shown(plan_tables(done))[1] == "nothing is left to train"


def test_memory_is_of_a_batch(composed):
    plan = plan_study(composed(*SPACE, "recipe.batch_size=64"), [])
    (cells,) = ([*column.cells] for column in plan_tables(plan)[0].columns if column.header == "activations, MiB")
    specs = [ArchSpec("wide_resnet", (1, 1, 1), (first, 8, last)) for first in (4, 8) for last in (8, 16)]
    expected = [64 * activation_bytes(spec, (1, 8, 8)) / 2**20 for spec in specs]
    assert [float(cell) for cell in cells] == pytest.approx(expected, abs=0.05)


def test_a_sample_of_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    widths = "search.space.widths=[{min: 4, max: 40, step: 4},[8,16],[8,16]]"
    arguments = ["plan", "search.space.depths=[[1],[1],[1]]", widths, "search.seeds=[0,1]", "study.name=sampled"]
    whole = CliRunner().invoke(app, arguments)
    assert "40 architectures" not in whole.output
    assert "80 runs inside no budget" in whole.output
    result = CliRunner().invoke(app, [*arguments, "--sample", "9"])
    assert result.exit_code == 0, result.output
    assert "18 runs inside no budget" in result.output
    assert "31 more architectures inside were not sampled" in result.output
    assert "rejected" not in result.output


def test_a_plan_beyond_a_hundred_thousand_runs_is_refused(composed):
    stage = "{min: 1, max: 50, step: 1}"
    space = ("search.space.depths=[[1],[1],[1]]", f"search.space.widths=[{stage},{stage},{stage}]")
    with pytest.raises(InputError, match=r"125,000 runs .*search\.sample"):
        plan_study(composed(*space), [])
    assert len(plan_study(composed(*space, "search.sample=3"), []).runs) == 3


BASE = ArchSpec("wide_resnet", (1, 1, 1), (4, 8, 8))


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        ("search.budget.params=arch", (3_242, None)),  # counted by hand in test_commands
        ("search.budget.macs=arch", (None, cost(BASE, 10, (1, 8, 8)).macs)),
        # 175,066 at three channels; the stem of one channel has 288 fewer
        ("search.budget.params=wrn_16_1", (174_778, None)),
    ],
)
def test_a_budget_is_what_a_network_costs_on_the_data_at_hand(composed, budget, expected):
    space = "search.space.vary.widths=[2]" if "wrn" not in budget else "search.space.shares=[[0.2,0.3,0.5]]"
    plan = plan_study(composed(space, budget), [])
    assert (plan.budget.params, plan.budget.macs) == expected


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["search.budget.params=wrn_1_1"], r"search\.budget\.params = 'wrn_1_1': .*preset"),
        (["search.sample=0"], r"search\.sample = 0"),
        (["search.sample_seed=-1"], r"search\.sample_seed = -1"),
        (["search.space.vary.stages=[1]"], r"search\.space\.vary"),
        (["search.space.vary.widths=[2]", "search.space.tie.depths=[[1,2]]"], r"search\.space\.tie"),
        (["search.space.last_share=[0.9,1]"], r"none of the 1 points.*last stage 4\d\.\d% of params, below 90%"),
        (["search.space.tie.depths=[[1,5]]"], r"search\.space\.tie\.depths = \[1, 5\]"),
    ],
)
def test_what_is_not_allowed_is_one_error_that_names_it(composed, overrides, message):
    with pytest.raises(InputError, match=message):
        plan_study(composed(*overrides), [])
