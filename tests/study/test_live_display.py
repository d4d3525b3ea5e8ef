"""The live display of a study in a terminal, and what else is shown there meanwhile."""

import logging
import os
import pty
import re
import sys
from pathlib import Path

import pytest
from records import FACTS, WHOLE

from robust_arch.common import process
from robust_arch.runs import StudyFolder
from robust_arch.runs.metrics import append_row
from robust_arch.study.live_display import Line, line
from robust_arch.study.progress import RunProgress

EPOCHS = 10
NAME = "d2-2-2-w8-16-32, seed 3"
MESSAGE = "pgd20: 750 of 2000 images, 12.8% still correct; 23 s left"


@pytest.fixture
def run(tmp_path):
    """A run that this process works on, in its fourth epoch."""
    folder = StudyFolder(tmp_path / "demo").run("a")
    facts = {"run_id": "a", "arch": "wide_resnet-d2-2-2-w8-16-32", "family": "wide_resnet", "seed": 3}
    with folder.lock():
        folder.write_state("running", FACTS.model_copy(update=facts), attempt=True)
        for epoch, robust in enumerate((10.0, 12.5, 21.04)):
            append_row(folder.metrics, {"epoch": epoch, "val_robust_acc": robust})
        yield folder


def shown(folder):
    return line(RunProgress(folder.read(), {}), EPOCHS)


def test_a_run_in_training_shows_its_epoch_and_the_last_held_out_accuracy(run):
    assert shown(run) == Line(3, EPOCHS, "epoch 4 of 10, 21.0% robust on held-out images")
    run.metrics.unlink()
    assert shown(run) == Line(0, EPOCHS, "epoch 1 of 10")


@pytest.mark.parametrize("prefix", [f"{NAME}, best checkpoint: ", "run a, best checkpoint: "])
def test_a_run_in_evaluation_shows_the_last_line_of_its_log(run, prefix):
    run.write_result(WHOLE)
    assert shown(run) == Line(EPOCHS, EPOCHS, "evaluating")
    earlier = "2026-11-28 13:41:46,123 INFO robust_arch.x: earlier\n" * 200
    run.log.write_text(f"{earlier}2026-11-28 13:41:56,123 INFO robust_arch.evaluation.suite: {prefix}{MESSAGE}\n")
    assert shown(run) == Line(EPOCHS, EPOCHS, f"best checkpoint: {MESSAGE}")
    run.log.write_text("Traceback\n  a line of something else\n")
    assert shown(run) == Line(EPOCHS, EPOCHS, "evaluating")


def test_while_a_display_draws_only_errors_are_shown(monkeypatch, capsys):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    log = logging.getLogger("robust_arch.test")
    process.set_up_logging()
    with process.drawing_on_console():
        process.set_up_logging()  # as the job of a run does
        assert not process.console_is_terminal()
        log.info("hidden")
        log.error("shown")
    log.info("after")
    assert process.console_is_terminal()
    told = capsys.readouterr().err
    assert "hidden" not in told
    assert "shown" in told
    assert "after" in told


def in_terminal(*arguments):
    """What the command prints on a terminal of 100 columns, without colours, and its exit status."""
    child, terminal = pty.fork()
    if child == 0:
        os.environ.update(COLUMNS="100", LINES="30", TERM="xterm")
        os.execv(sys.executable, [sys.executable, "-m", "robust_arch.train", *arguments])
    printed = b""
    while True:
        try:
            printed += os.read(terminal, 65536)
        except OSError:  # the terminal is closed
            break
    text = re.sub(r"\x1b\[[0-9;]*m", "", printed.decode())
    return text, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.slow
def test_in_a_terminal_a_study_is_one_display(tmp_path):
    study = ("study=demo", "search.space.shares=[[0.2,0.6,0.2],[0.1,0.45,0.45]]", "search.budget.params=20000")
    quick = (
        "search.seeds=[0]",
        "search.budget.tolerance=0.1",
        "trainer.max_epochs=2",
        "data.train_images=200",
        "evaluate.n=20",
        "evaluate.attacks=[fgsm]",
        "study.finalists=null",
    )
    text, status = in_terminal("-m", *study, *quick, "logger=csv", f"results_dir={tmp_path}")
    assert status == 0, text
    (study_folder,) = Path(tmp_path).glob("demo")
    runs = [folder.read() for folder in StudyFolder(study_folder).runs()]
    assert len(runs) == 2
    for done in ("0 of 2 runs", "2 of 2 runs"):
        assert re.search(rf"study demo\s+\S+\s+{done}", text)
    doing = "(epoch . of 2|best checkpoint|last checkpoint|evaluating)"
    for run in runs:
        assert re.search(rf"{run.facts.short_name}\s+\S+\s+{doing}", text)
        assert "epoch 2 of 2  loss" in run.folder.log.read_text()
    assert "loss" not in text
    assert "2 of 2 runs completed" in text
