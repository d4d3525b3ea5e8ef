"""A network that fails a check: no attack is run, nothing is printed as its number, and the reason is told."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
from commands import call
from composition import configuration
from typer.testing import CliRunner

from robust_arch.architectures import ArchSpec, build
from robust_arch.attacks import PGD, Attack, Clean, ThreatModel
from robust_arch.cli import app
from robust_arch.data import ImageSet
from robust_arch.evaluate import job
from robust_arch.evaluation import (
    EvaluationRecord,
    EvaluationSettings,
    NamedAttack,
    Subject,
    extend,
    select_examples,
)
from robust_arch.interop.checkpoint import LoadedCheckpoint, save_checkpoint
from robust_arch.runs import RunFacts, StudyFolder, load_study

CPU = torch.device("cpu")
THREAT = ThreatModel("linf", "0.1")
FACTS = RunFacts(
    run_id="0123456789ab",
    study="planted",
    arch="planted_net",
    family="wide_resnet",
    depths="1-1-1",
    widths="4-8-8",
    params=3242,
    macs=120_000,
    objective="sat",
    recipe="digits",
    train_threat="linf-0.1",
    data="planted",
    seed=0,
    epochs=1,
)
IDENTITY = ["checkpoint", "weights", "threat", "data", "n_test"]
NUMBERS = [
    "clean_acc",
    "fgsm_acc",
    "pgd20_acc",
    "cw40_acc",
    "autoattack_acc",
    "worst_case_acc",
    "stability",
    "lipschitz",
]


class Forbidden(Attack):
    """Must not run."""

    def run(self, net, x, y, threat, seed, index):
        raise AssertionError("this attack was run")


class Outside:
    """Returns images outside the ball, without the wrapper that would project them."""

    block_size, min_classes, implementation = None, 2, "planted"

    def __call__(self, net, x, y, threat, *, seed, index):
        return x - 0.2


FGSM = NamedAttack("fgsm", PGD(steps=1, rel_step_size=1.0, start=Clean()), {})
PGD20 = NamedAttack("pgd20", PGD(steps=20, rel_step_size=0.1), {})
CHEAT = NamedAttack("cw40", Outside(), {})
FORBIDDEN = tuple(NamedAttack(name, Forbidden(), {}) for name in ("fgsm", "pgd20"))
NO_GRADIENT = "gradients: 40 of 40 examples have a gradient that is zero everywhere or not finite"


@pytest.fixture
def sound(linear):
    """Five classes, weights in eighths."""
    return linear(torch.randint(-16, 17, (5, 16), generator=torch.Generator().manual_seed(1)) / 8)


@pytest.fixture
def broken(sound):
    """Says what `sound` says, without a gradient."""

    class Broken(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.sound = sound

        def forward(self, x):
            return self.sound(x.detach())

    return Broken()


@pytest.fixture
def images(sound):
    """Forty images, three of four labelled as `sound` says."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 129, (40, 1, 4, 4), generator=generator, dtype=torch.uint8)
    labels = sound(pixels.float() / 128).argmax(dim=1)
    labels[::4] = (labels[::4] + 1) % 5
    return ImageSet(pixels, labels, 5, max_value=128)


@pytest.fixture
def study(tmp_path):
    return StudyFolder(tmp_path / "results" / "planted")


def evaluated(study, net, images, attacks, facts=FACTS, checkpoint="best", rerun=False, **settings):
    """The record of one run of the study after one evaluation, as a new process finds and extends it."""
    run = study.run(facts.run_id)
    run.write_state("completed", facts)
    subject = Subject(facts.run_id, checkpoint, "raw", THREAT, "planted")
    record = EvaluationRecord(run.evaluations, subject, select_examples(images, None))
    asked = EvaluationSettings(attacks=attacks, **settings)
    if rerun:
        record.forget(asked)
    extend(record, net, asked, THREAT, CPU, {"command": "planted"})
    return record


def invoke(*arguments):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_no_attack_is_run_after_a_failed_check(study, broken, images):
    record = evaluated(study, broken, images, FORBIDDEN, cascade=FORBIDDEN, diagnostics=5, smoothness=5)
    content = json.loads(record.json_path.read_text())
    assert content["invalid"] == [NO_GRADIENT]
    assert content["attacks"] == {}
    assert not {"worst_case", "stability", "lipschitz", "diagnostics", "smoothness"} & set(content)
    assert record.summary() == f"invalid: {NO_GRADIENT}"
    with np.load(record.arrays_path) as arrays:
        assert sorted(arrays.files) == ["clean", "index"]


def test_no_further_attack_is_run_after_one_that_broke_the_rules(study, sound, images):
    attacks = (FGSM, CHEAT, FORBIDDEN[1])
    record = evaluated(study, sound, images, attacks)
    (reason,) = record.invalid
    assert reason.startswith("cw40: images left linf-0.1 (distance 0.")
    assert list(record.content["attacks"]) == ["fgsm", "cw40"]


def test_the_row_of_an_invalid_record_says_who_and_nothing_else(study, broken, images):
    evaluated(study, broken, images, FORBIDDEN)
    (row,) = load_study(study.path).to_dict("records")
    assert row["status"] == "invalid"
    assert [row[name] for name in IDENTITY] == ["best", "raw", "linf-0.1", "planted", 40]
    facts = FACTS.plain()
    assert {name: row[name] for name in facts} == facts
    assert all(pd.isna(row[name]) for name in NUMBERS)
    written = pd.read_csv(study.write_results(), dtype=str, keep_default_na=False)
    assert written[NUMBERS].to_numpy().tolist() == [[""] * len(NUMBERS)]
    assert written["status"].tolist() == ["invalid"]


def test_numbers_of_attacks_that_ran_before_the_failure_stand_in_no_row(study, sound, images):
    record = evaluated(study, sound, images, (FGSM, PGD20, CHEAT))
    assert record.content["attacks"]["fgsm"]["count"] > 0
    (row,) = load_study(study.path).to_dict("records")
    assert row["status"] == "invalid"
    assert all(pd.isna(row[name]) for name in NUMBERS)


def test_one_invalid_checkpoint_leaves_the_other_its_numbers(study, sound, broken, images):
    evaluated(study, broken, images, FORBIDDEN, checkpoint="best")
    record = evaluated(study, sound, images, (FGSM, PGD20), checkpoint="last")
    rows = load_study(study.path).set_index("checkpoint")
    assert rows["status"].to_dict() == {"best": "invalid", "last": "completed"}
    assert rows.loc["last", "clean_acc"] == 75.0
    assert rows.loc["last", "pgd20_acc"] == record.content["attacks"]["pgd20"]["percent"]
    assert pd.isna(rows.loc["best", "clean_acc"])


def test_an_invalid_record_is_complete_until_it_is_forgotten(study, sound, broken, images):
    evaluated(study, broken, images, FORBIDDEN)
    # the network would pass now, but that is not tried
    record = evaluated(study, sound, images, FORBIDDEN)
    assert record.invalid == [NO_GRADIENT]
    asked = EvaluationSettings(attacks=(FGSM, PGD20))
    assert record.is_complete(asked)
    assert list(record.missing(asked)) == ["fgsm", "pgd20"]
    again = evaluated(study, sound, images, (FGSM, PGD20), rerun=True)
    assert again.invalid == []
    assert list(again.content["attacks"]) == ["fgsm", "pgd20"]
    (row,) = load_study(study.path).to_dict("records")
    assert row["status"] == "completed"
    assert row["clean_acc"] == 75.0


def test_an_attack_that_broke_the_rules_is_forgotten_by_its_name(study, sound, images):
    evaluated(study, sound, images, (FGSM, CHEAT))
    # fgsm done again leaves the other's failure where it is
    still = evaluated(study, sound, images, (FORBIDDEN[0],), rerun=True)
    assert [reason.split(":")[0] for reason in still.invalid] == ["cw40"]
    honest = NamedAttack("cw40", PGD(steps=3, rel_step_size=0.4), {})
    healed = evaluated(study, sound, images, (FGSM, honest), rerun=True)
    assert healed.invalid == []
    assert healed.content["worst_case"]["attacks"] == ["cw40", "fgsm"]


def test_a_rerun_that_is_cut_off_leaves_no_number_of_forgotten_attacks(study, sound, images):
    evaluated(study, sound, images, (FGSM, PGD20))
    with pytest.raises(AssertionError, match="was run"):
        evaluated(study, sound, images, FORBIDDEN, rerun=True)
    (row,) = load_study(study.path).to_dict("records")
    assert row["clean_acc"] == 75.0
    assert all(pd.isna(row[name]) for name in NUMBERS if name != "clean_acc")


def test_the_commands_take_a_study_with_an_invalid_evaluation(study, sound, broken, images, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    for number, net in enumerate((broken, sound, sound)):
        facts = FACTS.model_copy(update={"run_id": f"{number}" * 12, "arch": f"net_{number}", "seed": number})
        evaluated(study, net, images, (FGSM, PGD20), facts)
    assert "3 completed" in invoke("status", study.path)
    listed = invoke("results", study.path)
    without, with_numbers = listed.split("without numbers")[1], listed.split("without numbers")[0]
    assert "000000000000" in without
    assert "invalid" in without
    assert "000000000000" not in with_numbers
    assert "111111111111" in with_numbers
    assert "222222222222" not in without
    assert "invalid" in invoke("results", study.path, "--mixed")
    invoke("report", study.path)
    page = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", study.report_path.read_text()))
    told = re.search(r"Invalid evaluations A check failed, (.*?) Warnings ", page)
    assert told
    assert f"net_0, seed 0, run {'0' * 12}, checkpoint best, linf-0.1, 40 test images: {NO_GRADIENT}" in told[1]
    assert "net_1" not in told[1]


def test_the_commands_take_a_study_whose_only_evaluation_is_invalid(study, broken, images, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    evaluated(study, broken, images, FORBIDDEN)
    assert "1 completed" in invoke("status", study.path)
    assert "invalid" in invoke("results", study.path)
    invoke("report", study.path)
    assert NO_GRADIENT in study.report_path.read_text()


def test_a_study_without_invalid_evaluations_says_so(study, sound, images):
    evaluated(study, sound, images, (FGSM, PGD20))
    invoke("report", study.path)
    assert "None: every evaluation passed its checks." in study.report_path.read_text()


# --- the command itself


@pytest.fixture(scope="module")
def zeroed(tmp_path_factory):
    """A folder with a checkpoint whose final layer is zero, evaluated by the command; how the command ended."""
    folder = tmp_path_factory.mktemp("zeroed")
    spec = ArchSpec("wide_resnet", (1, 1, 1), (4, 8, 8))
    net = build(spec, 10, (1, 8, 8), seed=0).eval()
    head = [module for module in net.modules() if isinstance(module, torch.nn.Linear)][-1]
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    card = {"schema": 1, "arch": spec.to_dict(), "num_classes": 10, "image_shape": [1, 8, 8]}
    save_checkpoint(LoadedCheckpoint(net, spec, card), folder / "net.ckpt")
    return folder, call("robust_arch.evaluate", *ARGUMENTS, cwd=folder)


ARGUMENTS = ("checkpoint=net.ckpt", "data=digits", "trainer.accelerator=cpu")
# all logits are 0: class 0 is said of every digit, 36 of the 360, which is a tenth
ZEROED = (
    "error: invalid: gradients: 64 of 64 examples have a gradient that is zero everywhere or not finite; "
    "clean accuracy above chance: 10.0% [7.3, 13.5] of 360, chance 10.0% (rerun=true tries again)"
)


def test_the_evaluate_command_fails_with_the_reason(zeroed):
    folder, done = zeroed
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == ZEROED
    assert "Traceback" not in done.stderr
    (row,) = load_study(folder / "results" / "external").to_dict("records")
    assert (row["status"], row["checkpoint"], row["n_test"]) == ("invalid", "external", 360)
    assert all(pd.isna(row[name]) for name in NUMBERS)
    (card,) = folder.glob("results/external/runs/*/evaluations/card.md")
    assert "**Invalid: none of these numbers may be used.**" in card.read_text()


def test_evaluating_again_fails_again_and_changes_no_record(zeroed, monkeypatch):
    folder, _ = zeroed
    monkeypatch.chdir(folder)
    (path,) = folder.glob("results/external/runs/*/evaluations/*.json")
    before = path.read_bytes(), path.stat().st_mtime_ns
    cfg = configuration(folder, *ARGUMENTS, "evaluate.attacks=[cw40]", config="evaluate")
    with pytest.raises(SystemExit) as stopped:
        job(cfg)
    assert stopped.value.code == ZEROED  # a text as exit code is printed, and the status is 1
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
