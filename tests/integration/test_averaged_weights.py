"""A run with averaged weights, from its checkpoints to every place where its numbers are read."""

import csv
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from commands import SMALL, call
from composition import configuration
from weights import same_weights, weights

from robust_arch.analysis.groups import groups, main_group
from robust_arch.analysis.report.study_report import write_study_report
from robust_arch.configuration.settings import read_settings
from robust_arch.errors import InputError
from robust_arch.execution.evaluate_checkpoint import evaluate
from robust_arch.execution.execute import execute
from robust_arch.execution.run import Run
from robust_arch.interop import export_checkpoint, load_checkpoint, open_checkpoint
from robust_arch.runs import load_study
from robust_arch.runs.metrics import read_rows
from robust_arch.study.merge import merge_studies
from robust_arch.tracking.columns import run_summary

OPTIONS = (*SMALL, "recipe/averaging=ema", "recipe.averaging.decay=0.5", "evaluate.attacks=[fgsm]")
ALL = [("best", "ema"), ("best", "raw"), ("last", "ema"), ("last", "raw")]


def executed(folder, *options):
    run = Run.load(read_settings(configuration(folder, *options)))
    assert execute(run) == "completed", run.folder.status.error
    return run


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("averaged")


@pytest.fixture(scope="module")
def run(root):
    return executed(root, *OPTIONS)


def evaluated(folder, path, *options):
    small = ("evaluate.attacks=[fgsm]", "evaluate.n=40", "trainer.accelerator=cpu", "trainer.threads=1")
    return evaluate(configuration(folder, f"checkpoint={path}", *small, *options, config="evaluate"))


def part(run, prefix, which="last"):
    state = weights(run, which)
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def test_every_row_is_of_the_weights_that_it_names(run):
    records = {(record.checkpoint, record.weights): record for record in run.folder.evaluation_records()}
    assert sorted(records) == ALL
    test = run.splits.test
    for (which, name), record in records.items():
        net = load_checkpoint(run.folder.checkpoint(which), weights=name).net
        assert same_weights(net.state_dict(), part(run, "net." if name == "raw" else "averages.ema.", which))
        index = torch.from_numpy(np.load(run.folder.evaluations / f"{record.eval_id}.npz")["index"])
        with torch.no_grad():
            correct = net(test.to_unit(test.images[index])).argmax(dim=1) == test.labels[index]
        assert (record.clean.count, record.n_test) == (int(correct.sum()), 40)
    with run.study.results_path.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert sorted((row["checkpoint"], row["weights"]) for row in rows) == ALL
    assert {row["recipe"].partition("+")[2] for row in rows} == {"ema:decay-0.5"}  # runs without are another group


def test_the_averaged_weights_decide_the_best_epoch_and_everyone_is_told(run):
    rows, result = read_rows(run.folder.metrics), run.folder.result
    assert result.selected_weights == "ema"
    assert result.best_epoch == max(range(2), key=lambda epoch: rows[epoch]["val_robust_count"])
    assert result.best_val_robust_acc == rows[result.best_epoch]["val_robust_acc"]
    card = (run.folder.evaluations / "card.md").read_text()
    assert "by robust accuracy of the ema weights on 20 held-out images" in card
    assert [line.split(",")[1].strip() for line in card.splitlines() if line.startswith("## Checkpoint")] == [
        "ema weights", "raw weights", "ema weights", "raw weights",
    ]  # fmt: skip


def test_no_two_numbers_share_a_column_on_wandb(run):
    summary = run_summary(run.folder, "completed")
    for record in run.folder.evaluation_records():
        place = record.checkpoint if record.weights == "raw" else f"{record.checkpoint}-ema"
        assert summary[f"{place}-n40/clean_acc"] == record.clean.percent


def test_figures_show_the_averaged_weights_and_no_group_mixes(run):
    frame = load_study(run.study.path)
    assert sorted(len(group.rows) for group in groups(frame)) == [1, 1, 1, 1]
    for rows in (frame, frame[::-1]):
        shown = main_group(rows)
        assert (shown.checkpoint, shown.weights) == ("best", "ema")
    page = write_study_report(run.study.path).read_text()
    assert "checkpoint best (ema weights), 40 test images" in page


def test_merging_keeps_all_rows(run, tmp_path):
    merge_studies([run.study.path], tmp_path / "merged")
    merged = load_study(tmp_path / "merged")
    assert sorted(zip(merged["checkpoint"], merged["weights"], strict=True)) == ALL


def test_an_evaluation_takes_the_weights_that_were_selected_or_those_it_is_told(run, root):
    path = run.folder.checkpoint("best")
    before = {record.eval_id: record.weights for record in run.folder.evaluation_records()}
    for options, name in (((), "ema"), (("evaluate.weights=raw",), "raw"), (("evaluate.weights=ema",), "ema")):
        record = evaluated(root, path, *options)
        assert (record.content["weights"], before[record.eval_id]) == (name, name)
    with pytest.raises(InputError, match="weights = 'swa': expected raw or ema, which"):
        evaluated(root, path, "evaluate.weights=swa")
    with pytest.raises(InputError, match=r"evaluate\.weights = 'mean': expected raw, ema or swa"):
        evaluated(root, path, "evaluate.weights=mean")


@pytest.mark.parametrize(("given", "name"), [(None, "ema"), ("raw", "raw"), ("ema", "ema")])
def test_an_export_holds_one_network_and_says_which(run, tmp_path, given, name):
    out = tmp_path / "net.safetensors"
    export_checkpoint(run.folder.checkpoint("last"), out, "safetensors", weights=given)
    opened = open_checkpoint(out)
    assert (opened.weights, opened.card["weights"]) == (name, name)
    assert same_weights(opened.net.state_dict(), part(run, "net." if name == "raw" else "averages.ema."))
    record = evaluated(tmp_path, out)
    assert (record.content["checkpoint"], record.content["weights"]) == ("external", name)
    other = {"raw": "ema", "ema": "raw"}[name]
    with pytest.raises(InputError, match=f"weights = '{other}': expected {name}, the only ones that"):
        open_checkpoint(out, weights=other)


def test_weights_that_a_run_does_not_have_are_refused_before_it_starts(tmp_path):
    for options, message in (
        (("evaluate.weights=[ema]",), r"evaluate\.weights = \['ema'\]: expected some of raw, which this run has"),
        (("recipe/averaging=swa", "evaluate.weights=[ema]"), "expected some of raw, swa, which this run has"),
        (("recipe/averaging=swa", "evaluate.weights=[]"), "expected some of raw, swa"),
    ):
        with pytest.raises(InputError, match=message):
            Run.load(read_settings(configuration(tmp_path, *SMALL, *options)))
    assert not (tmp_path / "results").exists()


def test_a_setting_of_averaging_without_averaging_says_what_to_set(tmp_path):
    done = call("robust_arch.train", *SMALL, "recipe.averaging.decay=0.9", cwd=tmp_path)
    assert done.returncode != 0
    assert "recipe.averaging: not set; choose one first, with recipe/averaging=ema or swa" in done.stderr
    assert "Traceback" not in done.stderr


def test_only_the_weights_that_are_asked_for_are_evaluated(tmp_path):
    done = executed(tmp_path, *OPTIONS, "evaluate.weights=[ema]", "evaluate.checkpoints=[best]")
    assert [(record.checkpoint, record.weights) for record in done.folder.evaluation_records()] == [("best", "ema")]
    assert done.is_done()
    more = Run.load(read_settings(configuration(tmp_path, *OPTIONS)))
    assert not more.is_done()
    assert execute(more) == "completed"
    assert len(list(more.folder.evaluation_records())) == 4


def test_too_few_epochs_for_a_mean_are_announced_and_trained(tmp_path, caplog):
    run = executed(tmp_path, *SMALL, "recipe/averaging=swa", "trainer.max_epochs=1", "evaluate.attacks=[fgsm]")
    (line,) = [record for record in caplog.records if "recipe.averaging" in record.getMessage()]
    assert line.levelname == "WARNING"
    assert line.getMessage().endswith(
        "start = 0.75 leaves 0 of trainer.max_epochs = 1 to average, so the swa weights will "
        "equal the raw ones; set an earlier start or more epochs"
    )
    assert same_weights(part(run, "net."), part(run, "averages.swa."))


@pytest.mark.slow
def test_a_run_that_is_killed_in_an_epoch_ends_with_the_same_bits(tmp_path):
    options = (
        *SMALL, "recipe.awp.gamma=0.01", "recipe/averaging=swa", "recipe.averaging.start=0.3",
        "recipe.averaging.every=step", "trainer.max_epochs=4", "trainer.limit_train_batches=30",
    )  # fmt: skip
    whole = executed(tmp_path / "whole", *options)
    cut = Run.load(read_settings(configuration(tmp_path / "cut", *options)))
    command = [sys.executable, "-m", "robust_arch.train", *options, f"results_dir={tmp_path}/cut/results"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 240
        while len(read_rows(cut.folder.metrics)) < 2 and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.01)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert cut.folder.state == "planned"
    assert len(read_rows(cut.folder.metrics)) < 4
    assert execute(cut) == "completed"
    for which in ("best", "last"):
        assert same_weights(weights(whole, which), weights(cut, which))
    rows = [[{**row, "seconds": 0, "time": 0} for row in read_rows(run.folder.metrics)] for run in (whole, cut)]
    assert rows[0] == rows[1]
    counts = [
        {record.eval_id: (record.clean.count, record.worst_case.count) for record in run.folder.evaluation_records()}
        for run in (whole, cut)
    ]
    assert counts[0] == counts[1]
    assert len(counts[0]) == 4
