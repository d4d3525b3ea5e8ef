"""A network that fails a check: no attack is run, nothing is printed as its number, and the reason is told."""

import re
from dataclasses import replace

import pandas as pd
import pytest
import torch
from commands import call
from composition import configuration
from evaluations import FACTS, SUBJECT, Forbidden, Outside, named, on_disk, random_images
from evaluations import evaluated as evaluated_in
from torch import nn
from typer.testing import CliRunner

from robust_arch.architectures import ArchSpec, build
from robust_arch.attacks import PGD, Clean
from robust_arch.cli import app
from robust_arch.evaluate import job
from robust_arch.evaluation import EvaluationSettings
from robust_arch.interop.checkpoint import LoadedCheckpoint, save_checkpoint
from robust_arch.runs import StudyFolder, load_study

IDENTITY = ["checkpoint", "weights", "threat", "data", "n_test"]
ATTACKED = ["fgsm_acc", "pgd20_acc", "cw40_acc", "autoattack_acc", "worst_case_acc", "stability", "lipschitz"]
NUMBERS = ["clean_acc", *ATTACKED]
FGSM = named("fgsm", PGD(steps=1, rel_step_size=1.0, start=Clean()))
PGD20 = named("pgd20", PGD(steps=20, rel_step_size=0.1))
CHEAT = named("cw40", Outside())
FORBIDDEN = tuple(named(name, Forbidden()) for name in ("fgsm", "pgd20"))
NO_GRADIENT = "gradients: 40 of 40 examples have a gradient that is zero everywhere or not finite"


@pytest.fixture
def sound(linear):
    """Five classes, weights in eighths."""
    return linear(torch.randint(-16, 17, (5, 16), generator=torch.Generator().manual_seed(1)) / 8)


class Detached(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x.detach())


@pytest.fixture
def broken(sound):
    """The logits of `sound`, without a gradient."""
    return Detached(sound)


@pytest.fixture
def images(sound):
    """Forty images, three of four labelled as `sound` says."""
    return random_images(sound, 40)


@pytest.fixture
def study(tmp_path):
    return StudyFolder(tmp_path / "results" / "planted")


def evaluated(study, net, images, attacks, facts=FACTS, checkpoint="best", **settings):
    """The record of one run of the study after one evaluation, as a new process finds and extends it."""
    run = study.run(facts.run_id)
    run.write_state("completed", facts)
    subject = replace(SUBJECT, run_id=facts.run_id, checkpoint=checkpoint)
    return evaluated_in(run.evaluations, net, images, *attacks, subject=subject, **settings)


def invoke(*arguments):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_no_attack_is_run_after_a_failed_check(study, broken, images):
    record = evaluated(study, broken, images, FORBIDDEN, cascade=FORBIDDEN, diagnostics=5, smoothness=5)
    content, arrays = on_disk(record)
    assert content["invalid"] == [NO_GRADIENT]
    assert content["attacks"] == {}
    assert not {"worst_case", "stability", "lipschitz", "diagnostics", "smoothness"} & set(content)
    assert record.summary() == f"invalid: {NO_GRADIENT}"
    assert sorted(arrays) == ["clean", "index", "label"]


def test_no_further_attack_is_run_after_one_that_broke_the_rules(study, sound, images):
    record = evaluated(study, sound, images, (FGSM, CHEAT, FORBIDDEN[1]))
    (reason,) = record.invalid
    assert reason.startswith("cw40: images left linf-0.1 (distance 0.")
    assert list(record.content["attacks"]) == ["fgsm", "cw40"]
    # numbers of attacks that ran before the failure are in no row
    assert record.content["attacks"]["fgsm"]["count"] > 0
    (row,) = load_study(study.path).to_dict("records")
    assert row["status"] == "invalid"
    assert all(pd.isna(row[name]) for name in NUMBERS)


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
    healed = evaluated(study, sound, images, (FGSM, named("cw40", PGD(steps=3, rel_step_size=0.4))), rerun=True)
    assert healed.invalid == []
    assert healed.content["worst_case"]["attacks"] == ["cw40", "fgsm"]


def test_a_rerun_that_is_cut_off_leaves_no_number_of_forgotten_attacks(study, sound, images):
    evaluated(study, sound, images, (FGSM, PGD20))
    with pytest.raises(AssertionError, match="was run"):
        evaluated(study, sound, images, FORBIDDEN, rerun=True)
    (row,) = load_study(study.path).to_dict("records")
    assert row["clean_acc"] == 75.0
    assert all(pd.isna(row[name]) for name in ATTACKED)


def test_the_commands_take_a_study_with_an_invalid_evaluation(study, sound, broken, images, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    for number, net in enumerate((broken, sound, sound)):
        facts = FACTS.model_copy(update={"run_id": f"{number}" * 12, "arch": f"net_{number}", "seed": number})
        evaluated(study, net, images, (FGSM, PGD20), facts)
    assert "3 completed" in invoke("status", study.path)
    listed = invoke("results", study.path)
    with_numbers, without = listed.split("without numbers", maxsplit=1)
    assert "000000000000" in without
    assert "invalid" in without
    assert "222222222222" not in without
    assert "000000000000" not in with_numbers
    assert "111111111111" in with_numbers
    assert "invalid" in invoke("results", study.path, "--mixed")
    invoke("report", study.path)
    page = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", study.report_path.read_text()))
    told = re.search(r"Invalid evaluations A check failed, (.*?) Time, hardware, reproduction ", page)
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
    assert "every evaluation passed its checks" in study.report_path.read_text()


# --- the command itself

ARGUMENTS = ("checkpoint=net.ckpt", "data=digits", "trainer.accelerator=cpu")


def write_checkpoint(folder, weight, bias):
    """A checkpoint whose final layer has these weights and biases only."""
    spec = ArchSpec("wide_resnet", (1, 1, 1), (4, 8, 8))
    net = build(spec, 10, (1, 8, 8), seed=0).eval()
    nn.init.constant_(net.network.fc.weight, weight)
    nn.init.constant_(net.network.fc.bias, bias)
    card = {"schema": 1, "arch": spec.to_dict(), "num_classes": 10, "image_shape": [1, 8, 8]}
    save_checkpoint(LoadedCheckpoint(net, spec, card), folder / "net.ckpt")


# all logits are 0: class 0 is said of every digit, 36 of the 360, which is a tenth
ZEROED = (
    "error: invalid: gradients: 64 of 64 examples have a gradient that is zero everywhere or not finite; "
    "clean accuracy above chance: 10.0% [7.3, 13.5] of 360, chance 10.0%; usual causes: too little "
    "training, a missing normalisation, classes or channels in another order, weights that are not the trained ones, "
    "or a network that was saved or called in training mode (rerun=true tries again)"
)
# all logits overflow float32, if the features are not all 0
INFINITE = "error: invalid: finite logits: the logits of 360 of 360 images are NaN or infinite (rerun=true tries again)"


@pytest.mark.parametrize(("weight", "reason"), [(0.0, ZEROED), (3e38, INFINITE)], ids=["zero", "infinite"])
def test_the_evaluate_command_fails_with_the_reason_again_and_again(weight, reason, tmp_path, monkeypatch):
    write_checkpoint(tmp_path, weight, 0.0 if weight == 0 else 3e38)
    done = call("robust_arch.evaluate", *ARGUMENTS, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == reason
    assert "Traceback" not in done.stderr
    (row,) = load_study(tmp_path / "results" / "external").to_dict("records")
    assert (row["status"], row["checkpoint"], row["n_test"]) == ("invalid", "external", 360)
    assert all(pd.isna(row[name]) for name in NUMBERS)
    (card,) = tmp_path.glob("results/external/runs/*/evaluations/card.md")
    assert "**Invalid: none of these numbers may be used.**" in card.read_text()
    # evaluating again fails again and changes no record
    monkeypatch.chdir(tmp_path)
    (path,) = tmp_path.glob("results/external/runs/*/evaluations/*.json")
    before = path.read_bytes(), path.stat().st_mtime_ns
    cfg = configuration(tmp_path, *ARGUMENTS, "evaluate.attacks=[cw40]", config="evaluate")
    with pytest.raises(SystemExit) as stopped:
        job(cfg)
    assert stopped.value.code == reason  # a text as exit code is printed, and the status is 1
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_attacked_images_without_finite_logits_end_the_command_with_one_line(tmp_path, monkeypatch):
    def attack(*args, **settings):
        raise FloatingPointError("the logits of 2 of 9 attacked images are NaN or infinite")

    write_checkpoint(tmp_path, 0.0, 0.0)
    monkeypatch.setattr("robust_arch.execution.evaluate_checkpoint.extend", attack)
    done = call("robust_arch.evaluate", *ARGUMENTS, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == "error: the logits of 2 of 9 attacked images are NaN or infinite"
    assert "Traceback" not in done.stderr
