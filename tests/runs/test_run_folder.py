import json
import os
import subprocess
import sys

import pytest
import torch
from records import FACTS, WHOLE

import robust_arch
from robust_arch.errors import InputError
from robust_arch.runs import RunFacts, RunFolder

HOLD = """
import fcntl, sys
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "runs" / FACTS.run_id)


@pytest.fixture
def elsewhere(folder):
    """Another process that works on the run."""
    folder.path.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", HOLD, str(folder.path / ".lock")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_reading_creates_nothing(folder, tmp_path):
    assert folder.run_id == "0123456789ab"
    assert (folder.status, folder.state, folder.result, folder.trained) == (None, "planned", None, False)
    assert list(folder.evaluation_records()) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("state", ["planned", "completed", "failed", "diverged"])
def test_a_state_that_was_written_is_read(folder, state):
    folder.write_state(state, FACTS)
    assert RunFolder(folder.path).state == state


def test_status_says_what_whose_and_why(folder):
    folder.write_state("failed", FACTS, error="out of memory")
    status = json.loads((folder.path / "status.json").read_text())
    assert status == folder.status.plain()
    assert (status["state"], status["error"], status["pid"]) == ("failed", "out of memory", os.getpid())
    assert status["host"]
    assert RunFacts(**status["run"]) == FACTS


def test_running_without_a_process_was_cut_off_and_is_planned_again(folder):
    folder.write_state("running", FACTS, attempt=True)
    assert folder.state == "planned"
    with folder.lock() as mine:
        assert mine
    assert folder.state == "planned"


def test_running_with_another_process_is_running(folder, elsewhere):
    folder.write_state("running", FACTS, attempt=True)
    assert folder.state == "running"
    elsewhere.kill()
    elsewhere.communicate()
    assert folder.state == "planned"


def test_a_run_that_ended_stays_so_whoever_holds_the_lock(folder, elsewhere):
    # as when an attack is added to a completed run
    folder.write_state("completed", FACTS)
    assert folder.state == "completed"


@pytest.mark.parametrize("content", ["", '{"state": "comp', "[]", '{"state": "exploded"}', '{"state": null}', "{}"])
def test_a_status_that_says_nothing_valid_is_planned(folder, content):
    folder.path.mkdir(parents=True)
    (folder.path / "status.json").write_text(content)
    assert folder.state == "planned"


def test_a_torn_status_can_be_written_over(folder):
    folder.path.mkdir(parents=True)
    (folder.path / "status.json").write_text('{"attempts": 3, "sta')
    folder.write_state("running", FACTS, attempt=True)
    assert folder.status.attempts == 1


def finish(folder, *checkpoints):
    folder.write_result(WHOLE)
    folder.checkpoints.mkdir()
    for which in checkpoints:
        torch.save({"weights": torch.zeros(50)}, folder.checkpoint(which))


@pytest.mark.parametrize(
    ("checkpoints", "trained"), [((), False), (("best",), False), (("last",), False), (("best", "last"), True)]
)
def test_a_run_is_trained_with_both_checkpoints(folder, checkpoints, trained):
    finish(folder, *checkpoints)
    assert folder.trained is trained


@pytest.mark.parametrize("which", ["best", "last"])
def test_wherever_a_checkpoint_was_cut_short_the_run_is_not_trained(folder, which):
    finish(folder, "best", "last")
    content = folder.checkpoint(which).read_bytes()
    for length in (0, 1, 30, len(content) // 2, len(content) - 100, len(content) - 1):
        folder.checkpoint(which).write_bytes(content[:length])
        assert not folder.trained, length
    folder.checkpoint(which).write_bytes(content)
    assert folder.trained


def mark_as_merged(folder):
    status = folder.status.plain() | {"weights": "elsewhere", "host": "node7"}
    (folder.path / "status.json").write_text(json.dumps(status))


def test_a_merged_run_is_trained_without_checkpoints(folder):
    folder.write_state("completed", FACTS)
    folder.write_result(WHOLE)
    assert not folder.trained
    mark_as_merged(folder)
    assert folder.trained
    # only a training that is over
    (folder.path / "result.json").unlink()
    assert not folder.trained


def test_who_needs_the_weights_of_a_merged_run_is_told_where_they_are(folder):
    folder.write_state("completed", FACTS)
    folder.require_weights()  # no error for a run that was not merged
    mark_as_merged(folder)
    with pytest.raises(InputError, match=r"checkpoint = '.*best.ckpt'.* on node7"):
        folder.require_weights()
    finish(folder, "best", "last")  # copied by hand
    folder.require_weights()


def write_status(folder, **changes):
    folder.write_state("completed", FACTS)
    (folder.path / "status.json").write_text(json.dumps(folder.status.plain() | changes))


def test_records_of_earlier_versions_say_neither_end_nor_launcher(folder):
    write_status(folder)
    assert folder.end is None
    write_status(folder, end=3, launcher=["joblib"])
    assert folder.end is None


def test_running_without_a_process_was_killed_whatever_the_attempt_before_ended_in(folder, elsewhere):
    write_status(folder, state="running", end="disk_full")
    assert folder.end is None
    elsewhere.kill()
    elsewhere.communicate()
    assert folder.end == "killed"


def test_a_run_is_not_trained_without_a_whole_result(folder):
    finish(folder, "best", "last")
    (folder.path / "result.json").write_text('{"train_seconds": 1.')
    assert not folder.trained
    (folder.path / "result.json").unlink()
    assert not folder.trained


def test_the_result_names_schema_and_version(folder):
    folder.write_result({**WHOLE, "best_epoch": 3})
    result = json.loads((folder.path / "result.json").read_text())
    assert result == folder.result.plain()
    assert result == {"schema": 1, "package_version": robust_arch.__version__, **WHOLE, "best_epoch": 3}


def test_only_whole_evaluation_records_are_read(folder):
    folder.evaluations.mkdir(parents=True)
    whole = {"checkpoint": "best", "weights": "raw", "threat": "linf-0.1", "data": "digits", "n_test": 10}
    whole["clean"] = {"count": 9, "n": 10, "percent": 90.0, "interval": [59.6, 98.2]}
    whole["attacks"] = {"fgsm": {"count": 5, "n": 10, "percent": 50.0, "interval": [23.7, 76.3]}}
    for name in "ba":
        (folder.evaluations / f"{name}.json").write_text(json.dumps({"eval_id": name, **whole}))
    (folder.evaluations / "foreign.json").write_text('{"eval_id": "d"}')
    (folder.evaluations / "torn.json").write_text('{"eval_id": "to')
    (folder.evaluations / "a.npz").write_bytes(b"")
    (folder.evaluations / ".c.json.123.tmp").write_text('{"eval_id": "c"}')
    assert [record.eval_id for record in folder.evaluation_records()] == ["a", "b"]


def test_clearing_removes_everything_but_the_lock(folder, monkeypatch):
    monkeypatch.setattr("robust_arch.runs.lock._PATIENCE", 0.0)
    folder.write_state("completed", FACTS)
    finish(folder, "best", "last")
    (folder.path / "wandb" / "run").mkdir(parents=True)
    (folder.path / "wandb" / "run" / "log").write_text("text")
    with folder.lock() as mine:
        assert mine
        lock_file = (folder.path / ".lock").stat().st_ino
        folder.clear()
        assert [path.name for path in folder.path.iterdir()] == [".lock"]
        # the very file: a new one of this name would let a second process in
        assert (folder.path / ".lock").stat().st_ino == lock_file
        with folder.lock() as second:
            assert second is False
    assert folder.state == "planned"


LINE = "a0: &a0 [x, x, x, x, x, x, x, x]\n"
BOMB = LINE + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]\n" for n in range(1, 30))
UNREADABLE = {
    "a billion times the same": BOMB,
    "inside itself": "trainer: &node {compile: *node}\n",
    "very deep": "trainer: " + "[" * 5000 + "]" * 5000,
    "no such day": "trainer: {started: 2026-99-99}\n",
    "a Python object": "trainer: !!python/object/apply:os.mkdir [MADE]\n",
    "no group": "[1, 2]\n",
    "no text": b"\xff\xfe",
}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
def test_a_configuration_that_is_no_plain_small_data_counts_as_none(folder, content, tmp_path):
    folder.path.mkdir(parents=True)
    text = content if isinstance(content, bytes) else content.replace("MADE", str(tmp_path / "made")).encode()
    folder.config.write_bytes(text)
    assert folder.recorded_config == {}
    assert folder.recorded_group("trainer") == {}
    assert not (tmp_path / "made").exists()


def test_a_configuration_is_read_without_resolving_it(folder):
    folder.path.mkdir(parents=True)
    folder.config.write_text("logger: csv\ntrainer: {threads: '${oc.env:HOME}', fold: true}\n")
    assert folder.recorded_group("trainer") == {"threads": "${oc.env:HOME}", "fold": True}
    assert folder.recorded_group("logger") == folder.recorded_group("data") == {}
