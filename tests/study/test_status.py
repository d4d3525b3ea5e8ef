"""What `status` says of studies whose numbers are chosen so that the answers follow by hand."""

import contextlib
import fcntl
import json
from datetime import UTC, datetime, timedelta

import pytest
from records import FACTS, WHOLE
from typer.testing import CliRunner

from robust_arch.cli import app
from robust_arch.runs import StudyFolder
from robust_arch.runs.metrics import append_row
from robust_arch.study import status_table as status
from robust_arch.study.progress import StudyProgress

MACS, EPOCHS = 1000, 10


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "240")


@pytest.fixture
def study(tmp_path):
    """A study whose plan names six runs; none has begun."""
    study = StudyFolder(tmp_path / "demo")
    rows = [{"run_id": name, "arch": f"arch_{name}", "params": 5, "macs": MACS, "seed": 0} for name in "abcdef"]
    study.write_plan(rows, {"command": "train"})
    (study.path / "runs").mkdir()
    return study


def begin(study, run_id, state, macs=MACS, epochs_done=0, error=None, **changes):
    run = study.run(run_id)
    facts = FACTS.model_copy(update={"run_id": run_id, "arch": f"arch_{run_id}", "macs": macs, "epochs": EPOCHS})
    run.write_state(state, facts, attempt=True, error=error)
    (run.path / "status.json").write_text(json.dumps(run.status.plain() | changes))
    for epoch in range(epochs_done):
        append_row(run.metrics, {"epoch": epoch, "seconds": 1.0})
    return run


def complete(study, run_id, seconds, held_out=50.0, macs=MACS, **changes):
    run = begin(study, run_id, "completed", macs, **changes)
    numbers = {"best_val_robust_acc": held_out, "selection_images": 240, "last_epoch": EPOCHS - 1, "flags": []}
    run.write_result({**WHOLE, "train_seconds": seconds, **numbers})
    return run


@pytest.fixture
def running(study):
    """A run that this process holds the lock of, four of ten epochs done."""
    run = begin(study, "d", "running", epochs_done=4)
    with run.lock() as mine:
        assert mine
        yield run


def shown(study, *options):
    result = CliRunner().invoke(app, ["status", str(study.path), *options])
    assert result.exit_code == 0, result.output
    return result.output.splitlines()


def test_the_summary_counts_every_state(study, running):
    complete(study, "a", 100.0)
    begin(study, "b", "failed")
    begin(study, "c", "diverged")
    begin(study, "e", "running")  # nobody holds its lock
    first, *_, last = shown(study)
    counts = "study demo: 1 done, 1 running, 1 failed, 1 diverged, 2 planned (1 of them killed)"
    assert first.startswith(counts)
    assert set(last.split(", ")) == {"1 completed", "1 failed", "1 diverged", "1 running", "2 planned"}


def test_time_left_follows_from_the_speed_of_completed_runs(study, running):
    # 0.01, 0.02 and 0.09 s a multiply-accumulate and epoch: median 0.02
    for run_id, seconds, macs in (("a", 100.0, MACS), ("b", 400.0, 2 * MACS), ("c", 900.0, MACS)):
        complete(study, run_id, seconds, macs=macs)
    # d: 6 epochs of 1000, e and f: 10 each; 26,000 x 0.02 s
    left = StudyProgress.read(study).time_left
    assert (left.seconds, left.completed, left.at_once) == (pytest.approx(520.0), 3, 1)
    assert "about 9 min left (3 done, 1 at once)" in shown(study)[0]
    second = begin(study, "e", "running", epochs_done=9)
    with second.lock():
        # 6 + 1 + 10 epochs, two at once
        assert StudyProgress.read(study).time_left.seconds == pytest.approx(170.0)


def test_a_killed_run_goes_on_where_its_epochs_end(study):
    complete(study, "a", 100.0)
    before = StudyProgress.read(study).time_left.seconds
    begin(study, "b", "running", epochs_done=7)
    assert before - StudyProgress.read(study).time_left.seconds == pytest.approx(7 * MACS * 0.01)


def test_without_a_completed_run_no_time_is_told(study, running):
    begin(study, "a", "failed")
    assert StudyProgress.read(study).time_left is None
    assert not any("left" in line for line in shown(study))


def test_the_best_so_far_is_of_held_out_images(study):
    complete(study, "a", 100.0, held_out=41.25)
    complete(study, "b", 100.0, held_out=43.75)
    begin(study, "c", "failed")
    (line,) = [line for line in shown(study) if "best so far" in line]
    assert line == "best so far: 43.8% robust on held-out images (n=240), arch_b, seed 0, run b"


def rows(lines):
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]


def test_what_needs_attention_comes_first(study, running):
    complete(study, "a", 100.0)
    begin(study, "b", "failed", error="Traceback\n  File\nRuntimeError: [1, 2] is full", end="disk_full")
    begin(study, "c", "diverged")
    begin(study, "f", "running")
    begin(study, "x", "failed")
    table = rows(shown(study))
    assert [row[0] for row in table] == ["d", "b", "c", "f", "x", "a", "e"]
    by_run = {row[0]: row for row in table}
    assert by_run["b"][-1] == "disk full; RuntimeError: [1, 2] is full"
    assert by_run["f"][-1] == "killed"
    assert by_run["x"][-1] == "not in the current plan"
    assert by_run["a"][3:7] == ["completed", "", "1", "50.0% of 240"]
    assert by_run["e"][1:6] == ["arch_e", "0", "planned", "", "0"]


def test_a_running_one_says_how_far_it_is_and_since_when(study, running):
    content = running.status.plain() | {"updated": (datetime.now(UTC) - timedelta(minutes=12)).isoformat()}
    (running.path / "status.json").write_text(json.dumps(content))
    assert rows(shown(study))[0][4] == "epoch 5 of 10, for 12 min"


@pytest.mark.parametrize("recorded", ["running", "completed"])  # as after its training, or as a finalist
def test_a_trained_run_that_a_process_works_on_is_being_evaluated(study, recorded):
    complete(study, "a", 100.0)
    run = complete(study, "b", 200.0, held_out=60.0)
    (run.path / "status.json").write_text(json.dumps(run.status.plain() | {"state": recorded}))
    with run.lock():
        first, _, *_ = lines = shown(study)
        assert first.startswith("study demo: 1 done, 0 running, 1 evaluating, 0 failed, 0 diverged, 4 planned")
        assert rows(lines)[0][0] == "b"
        assert rows(lines)[0][3] == "evaluating"
        assert any("60.0% robust" in line for line in lines)
    assert "evaluating" not in shown(study)[0]


def test_watching_goes_on_while_the_command_has_finalists_to_evaluate(study, monkeypatch):
    for run_id in "abcdef":
        complete(study, run_id, 100.0)
    command, finalist = contextlib.ExitStack(), contextlib.ExitStack()
    steps = iter([lambda: finalist.enter_context(study.run("a").lock()), finalist.close, command.close])
    monkeypatch.setattr(status.time, "sleep", lambda _: next(steps)())
    with command:
        command.enter_context(study.sweeping())
        command.enter_context(study.sweeping())  # two commands may work on one study
        lines = shown(study, "--watch")
    assert lines == [
        "6 done, 0 running, 0 failed, 0 diverged, 0 planned; its command is still running",
        "5 done, 0 running, 1 evaluating, 0 failed, 0 diverged, 0 planned",
        "6 done, 0 running, 0 failed, 0 diverged, 0 planned; its command is still running",
        "6 done, 0 running, 0 failed, 0 diverged, 0 planned",
    ]
    assert next(steps, None) is None


def test_of_large_studies_only_what_needs_attention_is_listed(study, running):
    for number in range(100):
        complete(study, f"run{number}", 1.0)
    begin(study, "a", "failed")
    lines = shown(study)
    assert [row[0] for row in rows(lines)] == ["d", "a"]
    assert "104 completed and planned runs are not listed; --all lists them" in lines
    assert lines[0].startswith("study demo: 100 done, 1 running, 1 failed, 0 diverged, 4 planned")
    assert len(rows(shown(study, "--all"))) == 106


def test_watching_tells_each_change_until_all_has_ended(study, monkeypatch):
    steps = iter(
        [
            lambda: complete(study, "a", 100.0),
            lambda: None,  # nothing new, no line
            lambda: [complete(study, run_id, 100.0) for run_id in "bcde"],
            lambda: begin(study, "f", "failed"),
        ]
    )
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        next(steps)()

    monkeypatch.setattr(status.time, "sleep", sleep)
    lines = shown(study, "--watch", "2")
    assert [line.split(";")[0] for line in lines] == [
        "0 done, 0 running, 0 failed, 0 diverged, 6 planned",
        "1 done, 0 running, 0 failed, 0 diverged, 5 planned",
        "5 done, 0 running, 0 failed, 0 diverged, 1 planned",
        "5 done, 0 running, 1 failed, 0 diverged, 0 planned",
    ]
    assert waits == [2.0] * 4


@pytest.mark.parametrize("options", [("--watch",), ("--watch", "--all"), ("--watch=5",), ("--watch", "5")])
def test_watching_ends_with_control_c(study, monkeypatch, options):
    waits = []

    def interrupted(seconds):
        waits.append(seconds)
        raise KeyboardInterrupt

    monkeypatch.setattr(status.time, "sleep", interrupted)
    assert shown(study, *options) == ["0 done, 0 running, 0 failed, 0 diverged, 6 planned"]
    assert waits == [5.0]


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "1e9"])
def test_what_is_no_number_of_seconds_to_wait_is_refused(study, seconds):
    result = CliRunner().invoke(app, ["status", str(study.path), f"--watch={seconds}"])
    assert "--watch = " in str(result.exception)


def test_looking_changes_nothing(study):
    complete(study, "a", 100.0)
    begin(study, "b", "running")
    lock_file = study.run("b").path / ".lock"
    lock_file.touch()
    before = {path: path.stat().st_mtime_ns for path in study.path.rglob("*")}
    with lock_file.open() as handle:
        fcntl.flock(handle, fcntl.LOCK_SH)
        shown(study)
    assert before == {path: path.stat().st_mtime_ns for path in study.path.rglob("*")}
