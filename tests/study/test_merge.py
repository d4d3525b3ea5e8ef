"""Studies run on several machines, joined; their evaluations are written by the package's own code."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from records import FACTS
from typer.testing import CliRunner

from robust_arch.attacks import ThreatModel
from robust_arch.cli import app
from robust_arch.common.files import read_arrays, write_json
from robust_arch.data import ImageSet
from robust_arch.errors import InputError
from robust_arch.evaluation import EvaluationRecord, Subject, select_examples
from robust_arch.evaluation.record import share
from robust_arch.runs import StudyFolder, load_study
from robust_arch.study import merge as merging
from robust_arch.study.merge import merge_studies

N = 20
# which of the 20 examples stay correct; clean loses the last two
STANDING = {"clean": range(18), "fgsm": range(12), "pgd20": range(4, 16), "cw40": range(3, 10)}
RESULT = {
    "finished": "2026-01-01T00:00:00+00:00", "train_seconds": 12.5, "best_epoch": 2, "last_epoch": 2,
    "best_val_robust_acc": 40.0, "selection_images": 240, "flags": [], "command": "train", "commit": None,
    "versions": {"torch": "2"}, "hardware": {"processor": "x", "cores": 2, "threads": 2, "gpus": []},
    "data": {"name": "digits", "train": 9, "val": 9, "test": N},
    "cost": {"params": 5, "macs": 6, "stage_params": [1, 2, 2], "stage_macs": [2, 2, 2]},
}  # fmt: skip


@pytest.fixture
def machines(tmp_path):
    """Two studies of one name and the folder they are merged into."""
    folders = [tmp_path / name / "demo" for name in ("a", "b")]
    for folder in folders:
        (folder / "runs").mkdir(parents=True)
    return [StudyFolder(folder) for folder in folders] + [StudyFolder(tmp_path / "merged")]


def flags(name, standing=STANDING):
    return torch.isin(torch.arange(N), torch.tensor(standing[name]))


def evaluate(run, *attacks, checkpoint="best", host="node1", standing=STANDING, seconds=1.5):
    """Record attacks that leave the given examples correct."""
    images = ImageSet(torch.zeros(N, 1, 2, 2, dtype=torch.uint8), torch.arange(N) % 10, 10)
    subject = Subject(run.run_id, checkpoint, "raw", ThreatModel("linf", "0.2"), "digits")
    record = EvaluationRecord(run.evaluations, subject, select_examples(images, None))
    record.add_clean(flags("clean", standing), [], {"device": host, "command": "train", "torch_version": host})
    for name in attacks:
        robust = flags(name, standing) & flags("clean", standing)
        record.arrays[name] = robust.numpy()
        told = {"settings": {"steps": 1}, "eps": "1/5", "seed": 0, "implementation": host, "seconds": seconds}
        record.content["attacks"][name] = {**share(robust), **told, "images": False, "problems": [], "warnings": []}
    record.write()
    return record


def add(study, run_id, state="completed", *attacks, host="node1", **changes):
    """A run with its files, checkpoints included."""
    run = study.run(run_id)
    run.write_state(state, FACTS.model_copy(update={"run_id": run_id}), attempt=True)
    write_json(run.path / "status.json", {**run.status.plain(), "host": host})
    for path in (run.config, run.metrics, run.log):
        path.write_text(f"{path.name}: {{of: {run_id}}}\n")
    for name in ("wandb", "checkpoints"):
        (run.path / name).mkdir()
    if state == "completed":
        run.write_result({**RESULT, **changes})
        for which in ("best", "last"):
            torch.save({"weights": torch.zeros(9)}, run.checkpoint(which))
        for checkpoint in ("best", "last"):
            record = evaluate(run, *attacks, checkpoint=checkpoint, host=host)
        (run.evaluations / f"{record.eval_id}.fgsm.safetensors").write_bytes(b"images")
    return run


def contents(path):
    """Every file with its content and time, but for locks."""
    files = [file for file in path.rglob("*") if file.is_file() and not file.name.endswith("lock")]
    return {str(file.relative_to(path)): (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


def merge(*studies):
    *sources, target = (study.path for study in studies)
    return merge_studies(sources, target)


def evaluation(run, checkpoint="best"):
    (path,) = (
        path for path in run.evaluations.glob("*.json") if json.loads(path.read_text())["checkpoint"] == checkpoint
    )
    return json.loads(path.read_text()), read_arrays(path.with_suffix(".npz"))


def test_the_records_of_all_machines_come_together_without_weights(machines):
    first, second, target = machines
    add(first, "one", "completed", "fgsm", host="node1")
    add(second, "two", "completed", "fgsm", host="node2")
    add(second, "three", "failed", host="node2")
    before = [contents(study.path) for study in (first, second)]
    assert sorted(merge(*machines).added) == ["one", "three", "two"]
    assert before == [contents(study.path) for study in (first, second)]
    for study, run_id in ((first, "one"), (second, "two"), (second, "three")):
        source, copied = study.run(run_id), target.run(run_id)
        own = {name: found[0] for name, found in contents(source.path).items()}
        for name in [name for name in own if name.startswith("checkpoints") or name.endswith("safetensors")]:
            del own[name]
        del own["status.json"]
        assert own == {name: found[0] for name, found in contents(copied.path).items() if name != "status.json"}
        mark = {"weights": "elsewhere"} if run_id != "three" else {}
        assert copied.status.plain() == source.status.plain() | mark
    frame = load_study(target.path)
    assert sorted(frame["run_id"]) == ["one", "one", "three", "two", "two"]
    assert frame.equals(load_study(target.path))
    assert target.results_path.is_file()
    assert target.run("two").trained
    with pytest.raises(InputError, match="on node2"):
        target.run("two").require_weights()


def test_merging_again_changes_nothing(machines):
    first, second, target = machines
    add(first, "one", "completed", "fgsm")
    add(second, "one", "completed", "pgd20")
    add(second, "two", "completed", "fgsm")
    for study, run_id in ((first, "one"), (second, "two")):
        row = {"run_id": run_id, "arch": "x", "params": 1, "macs": 2, "seed": 0}
        study.write_plan([row], {"command": f"train {run_id}", "budgets": ["b"], "considered": 4, "rejected": 1})
    merge(*machines)
    before = contents(target.path)
    again = merge(*machines)
    assert (sorted(again.same), again.changed, again.conflicts) == (["one", "one", "two"], False, [])
    assert contents(target.path) == before


def test_plans_are_united_in_order_of_first_appearance(machines):
    first, second, target = machines
    rows = {name: {"run_id": name, "arch": "x", "params": "1", "macs": "2", "seed": "0"} for name in "abcd"}
    first.write_plan([rows["c"], rows["a"]], {"command": "train 1", "budgets": ["60,000"], "considered": 4})
    second.write_plan([rows["a"], rows["d"], rows["b"]], {"command": "train 2", "budgets": ["9"], "considered": 6})
    merge(first, target)
    assert target.about.plain() == {"command": "train 1", "budgets": ["60,000"], "considered": 4}
    assert target.plan_path.read_bytes() == first.plan_path.read_bytes()
    merge(*machines)
    assert target.read_plan() == [rows[name] for name in "cadb"]
    assert target.about.command == "train 1\ntrain 2"
    assert (target.about.budgets, target.about.considered) == (["60,000", "9"], 10)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("other", ["planned", "failed", "diverged", "running"])
def test_of_two_the_completed_one_stays(machines, order, other):
    add(machines[order[0]], "one", "completed", "fgsm")
    add(machines[order[1]], "one", other)
    merge(*machines)
    assert machines[2].run("one").state == "completed"
    assert len(load_study(machines[2].path)) == 2


def test_an_unfinished_run_of_the_target_gives_way_to_the_completed_one(machines):
    first, _, target = machines
    add(first, "one", "completed", "fgsm")
    add(target, "one", "failed")
    assert merge(*machines).replaced == ["one"]
    assert target.run("one").state == "completed"
    assert not (target.run("one").path / "wandb").exists()


def add_weights(run):
    for which in ("best", "last"):
        torch.save({"weights": torch.ones(9)}, run.checkpoint(which))


def tear_status(run):
    add_weights(run)
    (run.path / "status.json").write_text('{"state": "runn')


def tear_result(run):
    (run.path / "result.json").write_text('{"schema": 1, "fini')


@pytest.mark.parametrize("state", ["completed", "failed"])
@pytest.mark.parametrize(
    ("own_state", "change"),
    [("running", add_weights), ("failed", add_weights), ("planned", tear_status), ("completed", tear_result)],
)
def test_weights_and_evaluations_of_the_target_are_never_replaced(machines, own_state, change, state):
    first, _, target = machines
    own = add(target, "one", own_state, "pgd20")
    change(own)
    add(first, "one", state, "fgsm")
    before = contents(own.path)
    outcome = merge(*machines)
    assert contents(own.path) == before
    assert not outcome.changed
    if state == "completed":
        ((run_id, source, why),) = outcome.skipped
        assert (run_id, source) == ("one", first.path)
        assert f"{own.path} holds its checkpoints or evaluations" in why


@pytest.mark.parametrize("state", ["completed", "failed"])
def test_a_torn_result_in_a_source_replaces_nothing_that_got_further(machines, state):
    first, _, target = machines
    tear_result(add(first, "one", "completed", "fgsm"))
    own = add(target, "one", state)
    before = contents(own.path)
    outcome = merge(*machines)
    assert (outcome.same, outcome.conflicts, outcome.skipped) == (["one"], [], [])
    assert contents(own.path) == before


def test_an_evaluated_checkpoint_from_elsewhere_needs_no_result(machines):
    for study, attack in zip(machines, ("fgsm", "pgd20"), strict=False):
        run = study.run("one")
        run.write_state(
            "completed", FACTS.model_copy(update={"run_id": "one", "objective": None, "epochs": None}), attempt=True
        )
        evaluate(run, attack)
    outcome = merge(*machines)
    assert (outcome.added, outcome.united) == (["one"], ["one"])


@pytest.mark.parametrize("status", ['{"state": "comp', "{}", '{"run": "one"}', None])
def test_a_run_of_a_source_whose_status_is_torn_is_named(machines, status):
    first, second, target = machines
    run = add(first, "one", "completed", "fgsm")
    (run.path / "status.json").unlink()
    if status is not None:
        (run.path / "status.json").write_text(status)
    add(second, "two", "completed", "fgsm")
    with first.run("begun").lock():
        pass  # a folder with a lock alone, in which nothing was done
    outcome = merge(*machines)
    assert outcome.skipped == [("one", first.path, "its status.json cannot be read")]
    assert [run.run_id for run in target.runs()] == ["two"]


@pytest.mark.parametrize("command", ["merge", "results"])
def test_a_folder_that_cannot_be_written_is_one_line(machines, command, monkeypatch):
    first, _, target = machines
    add(first, "one", "completed", "fgsm")

    def fails(*_):
        raise PermissionError(13, "Permission denied", "results.csv")

    monkeypatch.setattr(StudyFolder, "write_results", fails)
    done = CliRunner().invoke(app, [command, str(first.path), *(["--into", str(target.path)] * (command == "merge"))])
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit)
    assert "error: [Errno 13] Permission denied: 'results.csv'" in done.output


def test_times_hosts_and_versions_make_no_conflict(machines):
    first, second, _ = machines
    add(first, "one", "completed", "fgsm", host="node1")
    run = add(second, "one", "completed", "fgsm", host="node2", train_seconds=99.0, versions={"torch": "3"})
    evaluate(run, "fgsm", host="node2", seconds=77.0)
    outcome = merge(*machines)
    assert (outcome.added, outcome.same, outcome.conflicts) == (["one"], ["one"], [])


def test_evaluations_are_united_as_if_one_machine_had_done_them(machines, tmp_path):
    first, second, target = machines
    add(first, "one", "completed", "fgsm", "pgd20")
    add(second, "one", "completed", "pgd20", "cw40")
    assert merge(*machines).united == ["one"]
    whole = add(StudyFolder(tmp_path / "whole"), "one", "completed", "fgsm", "pgd20", "cw40")
    for checkpoint in ("best", "last"):
        content, arrays = evaluation(target.run("one"), checkpoint)
        expected, expected_arrays = evaluation(whole, checkpoint)
        assert content == expected
        # by hand: clean 0 to 17, fgsm 0 to 11, pgd20 4 to 15, cw40 3 to 9
        assert (content["worst_case"]["count"], content["worst_case"]["n"]) == (6, N)
        assert arrays.keys() == expected_arrays.keys()
        for name in arrays:
            np.testing.assert_array_equal(arrays[name], expected_arrays[name])
    assert "cw40" in (target.run("one").evaluations / "card.md").read_text()


def test_an_evaluation_that_only_one_of_them_has_is_added(machines):
    first, second, target = machines
    for study in (first, second):
        add(study, "one", "completed", "fgsm")
    for path in first.run("one").evaluations.glob(f"{evaluation(first.run('one'), 'last')[0]['eval_id']}*"):
        path.unlink()
    assert merge(*machines).united == ["one"]
    assert evaluation(target.run("one"), "last")[0] == evaluation(second.run("one"), "last")[0]


def other_numbers(study):
    standing = {**STANDING, "fgsm": range(1, 12)}
    evaluate(add(study, "one", "completed"), "fgsm", standing=standing)


def other_examples(study):
    # as many stay correct, but not the same ones
    evaluate(add(study, "one", "completed"), "fgsm", standing={**STANDING, "fgsm": range(1, 13)})


def other_training(study):
    add(study, "one", "completed", "cw40", best_val_robust_acc=40.5)


@pytest.mark.parametrize(
    ("change", "file", "what"),
    [
        (other_numbers, "evaluations/", "attacks.fgsm.count: 12 against 11"),
        (other_examples, "evaluations/", "fgsm: other examples"),
        (other_training, "result.json", "best_val_robust_acc: 40.0 against 40.5"),
    ],
)
def test_other_numbers_are_a_conflict_and_overwrite_nothing(machines, change, file, what, monkeypatch):
    monkeypatch.setenv("COLUMNS", "240")
    first, second, target = machines
    add(first, "one", "completed", "fgsm", "pgd20")
    change(second)
    add(second, "two", "completed", "fgsm")
    merge(first, target)
    before = contents(target.run("one").path)
    arguments = ["merge", first.path, second.path, "--into", target.path]
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 1
    assert contents(target.run("one").path) == before
    assert target.run("two").state == "completed"  # the rest is merged
    (conflict,) = merge(first, second, target).conflicts
    assert (conflict.run_id, conflict.source) == ("one", second.path)
    assert conflict.file.startswith(file)
    assert conflict.what.startswith(what)
    assert what in done.output


def test_a_run_that_a_process_works_on_is_skipped_and_named(machines):
    first, second, target = machines
    add(first, "one", "running")
    add(second, "two", "completed", "fgsm")
    with first.run("one").lock() as mine:
        assert mine
        done = CliRunner().invoke(app, ["merge", str(first.path), str(second.path), "--into", str(target.path)])
    assert done.exit_code == 0, done.output
    assert f"skipped: run one of {first.path}" in done.output
    assert [run.run_id for run in target.runs()] == ["two"]


def test_a_run_that_is_worked_on_in_the_target_is_left_alone(machines, monkeypatch):
    monkeypatch.setattr("robust_arch.runs.lock._PATIENCE", 0.0)
    first, _, target = machines
    add(first, "one", "completed", "fgsm")
    own = add(target, "one", "failed")
    with own.lock() as mine:
        assert mine
        assert [run_id for run_id, _, _ in merge(*machines).skipped] == ["one"]
    assert own.state == "failed"


def test_torn_evaluations_are_mended_and_never_taken_over(machines):
    first, second, target = machines
    for study in (first, second):
        add(study, "one", "completed", "fgsm")
    merge(first, target)
    (torn, _) = sorted(target.run("one").evaluations.glob("*.npz"))
    torn.write_bytes(torn.read_bytes()[:100])
    assert merge(second, target).united == ["one"]
    assert read_arrays(torn) is not None
    (torn, _) = sorted(second.run("one").evaluations.glob("*.npz"))
    torn.write_bytes(torn.read_bytes()[:100])
    assert merge(second, target).same == ["one"]


KILLED = """
import os, shutil, sys
from pathlib import Path
from robust_arch.study import merge as merging
copies, copyfile = [], shutil.copyfile
def dies(source, target):
    copies.append(target)
    if len(copies) == 12:
        os._exit(9)
    return copyfile(source, target)
shutil.copyfile = dies
merging.merge_studies([Path(sys.argv[1])], Path(sys.argv[2]))
"""


def test_a_killed_merge_leaves_whole_runs_and_is_done_by_the_next(machines):
    first, _, target = machines
    for run_id in ("one", "two"):  # eight files each
        add(first, run_id, "completed", "fgsm")
    command = [sys.executable, "-c", KILLED, str(first.path), str(target.path)]
    assert subprocess.run(command, check=False, env=os.environ).returncode == 9
    assert [run.run_id for run in target.runs()] == ["one"]
    assert len(load_study(target.path)) == 2
    merge(*machines)
    assert len(load_study(target.path)) == 4
    assert sorted(path.name for path in target.path.iterdir() if path.name != ".rebuilt.json") == [
        ".merge.lock",
        "results.csv",
        "runs",
    ]


@pytest.mark.parametrize("bad", ["source", "itself", "inside", "around", "linked", "file", "busy"])
def test_what_cannot_be_merged_is_refused_before_anything_is_written(machines, bad, monkeypatch):
    monkeypatch.setattr("robust_arch.runs.lock._PATIENCE", 0.0)
    first, second, target = machines
    add(first, "one", "completed", "fgsm")
    sources, into, said = [first.path], target.path, "--into = "
    if bad == "source":
        shutil.rmtree(second.path)
        sources, said = [first.path, second.path], "study = "
    elif bad == "itself":
        into = second.path / ".." / "demo"
        sources = [first.path, second.path]
    elif bad == "inside":
        into = first.path / "merged"
    elif bad == "around":
        into = first.path.parent
    elif bad == "linked":
        target.path.mkdir()
        (target.path / "runs").symlink_to(first.path / "runs")
    elif bad == "file":
        target.path.write_text("a file")
    with merging.lock.held((target.path if bad == "busy" else second.path.parent) / ".merge.lock"):
        before = contents(first.path.parents[1])
        with pytest.raises(InputError, match=said):
            merge_studies(sources, into)
        assert contents(first.path.parents[1]) == before
