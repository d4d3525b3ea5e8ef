"""Cards of planted run folders, read back line by line and cell by cell."""

import json
import re
from typing import Any

import pytest
import torch
import yaml

from robust_arch.analysis.report.card import write_card
from robust_arch.attacks import PGD, Clean, ThreatModel
from robust_arch.common.files import write_json, write_text
from robust_arch.common.identity import describe
from robust_arch.data import ImageSet
from robust_arch.evaluation import EvaluationRecord, EvaluationSettings, NamedAttack, Subject, extend, select_examples
from robust_arch.runs import RunFacts, RunFolder

FACTS: dict[str, Any] = {
    "run_id": "0123456789ab",
    "study": "planted",
    "arch": "wrn_34_r",
    "family": "wide_resnet",
    "depths": "5-5-5",
    "widths": "320-640-512",
    "params": 68_116_698,
    "macs": 19_132_765_184,
    "objective": "trades",
    "recipe": "own_recipe",
    "train_threat": "linf-8/255",
    "data": "cifar10",
    "seed": 17,
    "epochs": 100,
}
RESULT = {
    "command": "python -m robust_arch.train arch=wrn_34_r objective=trades 'data.root=/my data'",
    "train_seconds": 123_456.7,
    "best_epoch": 75,  # counted from 0
    "last_epoch": 99,
    "best_val_robust_acc": 55.5,
    "finished": "2026-01-01T00:00:00+00:00",
    "selection_images": 512,
    "flags": ["collapsed: held-out clean accuracy 10.2% (n=512) is at chance level, 10.0%"],
    "data": {"name": "cifar10", "fingerprint": "feed", "train": 45_000, "val": 5_000, "test": 10_000},
}
CONFIG = {
    "objective": {"_target_": "robust_arch.objectives.Trades", "name": "trades", "beta": 6.5},
    "recipe": {
        "_target_": "robust_arch.training.recipe.Recipe",
        "name": "own_recipe",
        "batch_size": 128,
        "early_stopping": None,
        "optimizer": {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.07, "momentum": 0.9},
        "schedule": {"milestones": [0.75, 0.9], "factor": 0.1},
        "augment": {"padding": 4, "flip": True},
    },
}
PGD20 = {"class": "PGD", "steps": 20, "loss": {"class": "Margin"}, "start": {"class": "Uniform", "radius": 0.5}}


def share(percent: float, low: float, high: float, n: int = 1_234) -> dict[str, Any]:
    return {"count": 0, "n": n, "percent": percent, "interval": [low, high]}


def attack(percent: float, low: float, high: float, **changes: Any) -> dict[str, Any]:
    told = {"settings": {"class": "PGD", "steps": 1}, "seed": 3, "implementation": "planted 1.2", "seconds": 5.0}
    return {**share(percent, low, high), **told, "problems": [], "warnings": [], **changes}


def record(**changes: Any) -> dict[str, Any]:
    """An evaluation record in which every number differs from every other."""
    stages = [
        {"attack": "pgd20", "attacked": 1_111, "standing": 999, "seconds": 1.0, "problems": [], "warnings": []},
        {"attack": "autoattack", "attacked": 999, "standing": 555, "seconds": 1.0, "problems": [], "warnings": []},
    ]
    return {
        "schema": 2,
        "eval_id": "ba9876543210",
        "run_id": FACTS["run_id"],
        "checkpoint": "best",
        "weights": "ema",
        "threat": "l2-0.5",
        "data": "cifar10",
        "n_test": 1_234,
        "precision": "float32",
        "preflight": [],
        "invalid": [],
        "warnings": ["pgd20: a step was too long", "fgsm is better than it should be"],
        "clean": share(91.26, 89.53, 92.71),
        "attacks": {
            "fgsm": attack(61.02, 58.27, 63.71),
            "pgd20": attack(52.43, 49.64, 55.21, settings=PGD20, seed=4, implementation="planted 1.3"),
            "cascade-pgd20-autoattack": attack(
                44.98, 42.22, 47.77, settings=[{"attack": "pgd20"}, {"attack": "autoattack"}], stages=stages
            ),
        },
        "worst_case": {**share(44.08, 41.34, 46.87), "attacks": ["cascade-pgd20-autoattack", "fgsm", "pgd20"]},
        "stability": share(57.37, 54.6, 60.1),
        "lipschitz": {"mean": 31.25, "n": 1_233, "left_out": 1},
        "lipschitz_kl": {"mean": 2.125, "n": 1_232, "left_out": 2},
        "lipschitz_l2": {"mean": 7.4375, "n": 1_231, "left_out": 3},
        "fosc": {"mean": 0.015625, "n": 1_230, "left_out": 4},
        "about": {
            "command": "python -m robust_arch.evaluate checkpoint=best.ckpt 'evaluate.attacks=[fgsm,pgd20]'",
            "torch_version": "2.11.0+cpu",
            "device": "cuda:3",
        },
        **changes,
    }


@pytest.fixture
def folder(tmp_path):
    """The folder of a run that is trained and not evaluated."""
    found = RunFolder(tmp_path / "planted" / "runs" / FACTS["run_id"])
    found.write_state("completed", RunFacts(**FACTS))
    found.write_result(RESULT)
    write_text(found.config, yaml.safe_dump(CONFIG))
    return found


def card(folder: RunFolder, *records: dict[str, Any]) -> str:
    for number, content in enumerate(records):
        write_json(folder.evaluations / f"{number}.json", content)
    path = write_card(folder)
    assert path == folder.evaluations / "card.md"
    return path.read_text(encoding="utf-8")


def tables(text: str) -> list[list[list[str]]]:
    """The Markdown tables: rows of cells, the line under the heading included."""
    found: list[list[list[str]]] = []
    previous = ""
    for line in text.splitlines():
        if line.startswith("|"):
            assert line.endswith("|")
            if not previous.startswith("|"):
                assert previous == ""  # a table needs an empty line before it
                found.append([])
            found[-1].append([cell.strip() for cell in line[1:-1].split("|")])
        previous = line
    return found


def lines(text: str, beginning: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(beginning)]


def test_the_card_says_what_the_network_is_and_costs(folder):
    text = card(folder, record())
    assert text.startswith("# Model card: wrn_34_r, run 0123456789ab\n\n")
    (line,) = lines(text, "- **Architecture:**")
    assert "wrn_34_r (family wide_resnet, depths 5-5-5, widths 320-640-512)" in line
    assert "68,116,698 parameters, 19.13 G multiply-accumulates per image" in line


def test_the_card_says_how_the_network_was_trained(folder):
    text = card(folder, record())
    (training,) = lines(text, "- **Training:**")
    assert "objective trades (beta 6.5), under linf-8/255, seed 17, 100 epochs in 123,457 s" in training
    assert "best epoch 76 by robust accuracy on 512 held-out images" in training
    (recipe,) = lines(text, "- **Recipe:**")
    assert recipe.startswith("- **Recipe:** own_recipe (")
    for told in ("batch_size 128", "optimizer lr 0.07", "momentum 0.9", "factor 0.1", "padding 4", "flip True"):
        assert told in recipe
    assert "_target_" not in text
    assert "None" not in recipe
    (data,) = lines(text, "- **Data:**")
    assert data == "- **Data:** cifar10, 45,000 to train, 5,000 held out, 10,000 to test"
    assert lines(text, "- **Trained with:**") == [f"- **Trained with:** `{RESULT['command']}`"]
    assert lines(text, "- **Warning:** collapsed") == [f"- **Warning:** {RESULT['flags'][0]}"]


def test_every_share_stands_in_the_table_with_its_n_and_interval(folder):
    content = record()
    ((head, rule, *rows),) = tables(card(folder, content))
    assert head == ["attack", "correct (%)", "95% interval", "n", "what it is"]
    assert [set(cell) <= {"-", ":"} and "-" in cell for cell in rule] == [True] * 5
    assert [row[:4] for row in rows] == [
        ["none (clean)", "91.26", "89.53 to 92.71", "1,234"],
        ["fgsm", "61.02", "58.27 to 63.71", "1,234"],
        ["pgd20", "52.43", "49.64 to 55.21", "1,234"],
        ["cascade-pgd20-autoattack", "44.98", "42.22 to 47.77", "1,234"],
        ["**worst case**", "44.08", "41.34 to 46.87", "1,234"],
    ]


def test_every_row_has_as_many_cells_as_the_heading(folder):
    records = [record(), record(checkpoint="last", attacks={}, invalid=["gradients: none"]), record(n_test=50)]
    found = tables(card(folder, *records))
    assert [len(table) for table in found] == [7, 7, 4]
    assert {len(row) for table in found for row in table} == {5}


def test_the_table_says_what_each_attack_is(folder):
    ((_, _, *rows),) = tables(card(folder, record()))
    what = {row[0]: row[4] for row in rows}
    assert what["fgsm"] == "steps 1; seed 3; planted 1.2"
    assert what["pgd20"] == "steps 20, loss Margin, start Uniform (radius 0.5); seed 4; planted 1.3"
    assert "pgd20 left 999 of 1,111, autoattack left 555 of 999" in what["cascade-pgd20-autoattack"]
    assert what["**worst case**"] == "point-wise over all of the above"


def test_what_was_measured_under_pgd20_stands_with_its_n(folder):
    text = card(folder, record())
    assert "the predicted class stays the same for 57.37% [54.60, 60.10] of 1,234 images" in text
    (line,) = lines(text, "- Means under pgd20:")
    for mean, n in (("31.25", "1,233"), ("2.125", "1,232"), ("7.438", "1,231"), ("0.01562", "1,230")):
        assert f"{mean} (n={n})" in line


def test_a_mean_of_nothing_is_left_out(folder):
    nothing = {"mean": None, "n": 0, "left_out": 1_234}
    (line,) = lines(card(folder, record(lipschitz=nothing, lipschitz_l2=nothing)), "- Means under pgd20:")
    assert "None" not in line
    assert "l1 of logits" not in line
    assert line.count("(n=") == 2


def test_without_pgd20_nothing_is_said_of_it(folder):
    content = record(attacks={"fgsm": attack(61.02, 58.27, 63.71)})
    for name in ("stability", "lipschitz", "lipschitz_kl", "lipschitz_l2", "fosc"):
        del content[name]
    assert "pgd20" not in card(folder, {**content, "warnings": [], "about": {}})


def test_each_evaluation_has_a_section_that_names_threat_weights_and_images(folder):
    text = card(folder, record(checkpoint="last", weights="raw"), record(n_test=50), record())
    assert lines(text, "## ") == [
        "## Checkpoint best, ema weights, l2-0.5, 1,234 test images of cifar10",
        "## Checkpoint best, ema weights, l2-0.5, 50 test images of cifar10",
        "## Checkpoint last, raw weights, l2-0.5, 1,234 test images of cifar10",
    ]


def test_warnings_and_the_exact_command_stand_in_the_card(folder):
    text = card(folder, record())
    assert lines(text, "- **Warning:**")[1:] == [f"- **Warning:** {warning}" for warning in record()["warnings"]]
    assert lines(text, "- Evaluated with") == [
        f"- Evaluated with `{record()['about']['command']}`, torch 2.11.0+cpu, float32, on cuda:3"
    ]


def test_verdicts_on_masked_gradients_stand_in_the_card(folder):
    verdicts = [
        {"name": "radius", "ok": True, "text": "at the largest radius 0.0% are left"},
        {"name": "steps", "ok": False, "text": "100 steps find 7.0% more"},
    ]
    losses = {"gradient": [0.5, 1.0], "random": [0.5, 0.6]}
    diagnostics = {
        "n": 200,
        "norm": "linf",
        "threat": "linf-8/255",
        "seed": 0,
        "eps": {"points": [{"eps": "1", **share(0, 0, 3)}]},
        "steps": [{"steps": 1, **share(80, 70, 90)}],
        "square": {"white_box": share(80, 70, 90), "both": share(70, 60, 80)},
        "directions": {"rel_t": [0, 1], "cross_entropy": losses, "margin": losses},
        "verdicts": verdicts,
    }
    text = card(folder, record(diagnostics=diagnostics))
    assert lines(text, "- Gradient masking") == [
        "- Gradient masking, radius: pass. at the largest radius 0.0% are left",
        "- Gradient masking, steps: **FLAG**. 100 steps find 7.0% more",
    ]


def test_the_smoothness_of_the_stages_stands_in_the_card(folder):
    stage = {"name": "stage 1", "from_input": 3.21, "alone": 1.23, "alone_max": 4.56, "alone_n": 200, "bound": 78.9}
    text = card(folder, record(smoothness={"n": 200, "seed": 0, "left_out": 0, "stages": [stage], "bounds": {}}))
    assert all(number in text for number in ("3.21", "1.23", "4.56", "78.9"))


def test_an_invalid_evaluation_says_so_before_its_numbers(folder):
    reasons = ["gradients: 64 of 64 examples have a gradient that is zero everywhere", "cw40: images left l2-0.5"]
    text = card(folder, record(invalid=reasons))
    before, _ = text.split("| attack |")
    assert "**Invalid: none of these numbers may be used.**" in before
    assert all(f"\n- {reason}\n" in before for reason in reasons)


def test_a_checkpoint_from_elsewhere_has_no_training(tmp_path):
    found = RunFolder(tmp_path / "external" / "runs" / "feed0123beef")
    unknown = dict.fromkeys(("objective", "recipe", "train_threat", "seed", "epochs"))
    found.write_state("completed", RunFacts(**{**FACTS, **unknown}))
    text = card(found, record(checkpoint="external"))
    assert "- **Training:** not known; an imported checkpoint" in text
    assert "None" not in text
    assert "Recipe" not in text
    assert len(tables(text)) == 1


def test_every_share_of_a_real_evaluation_stands_in_its_card(folder, linear):
    net = linear(torch.randn(5, 16, generator=torch.Generator().manual_seed(1)))
    pixels = torch.randint(0, 129, (40, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    labels = net(pixels.float() / 128).argmax(dim=1)
    labels[::4] = (labels[::4] + 1) % 5
    threat = ThreatModel("linf", "0.05")
    attacks = {"fgsm": PGD(steps=1, rel_step_size=1.0, start=Clean()), "pgd20": PGD(steps=20, rel_step_size=0.1)}
    named = tuple(NamedAttack(name, attack, describe(attack)) for name, attack in attacks.items())
    subject = Subject(FACTS["run_id"], "best", "raw", threat, "planted")
    made = EvaluationRecord(
        folder.evaluations, subject, select_examples(ImageSet(pixels, labels, 5, max_value=128), None)
    )
    settings = EvaluationSettings(attacks=named, cascade=named[::-1], diagnostics=20)
    about = {"command": "planted command", "torch_version": "0"}
    extend(made, net, settings, threat, torch.device("cpu"), about)
    text = write_card(folder).read_text(encoding="utf-8")
    content = json.loads(made.json_path.read_text())
    shares = {"none (clean)": content["clean"], **content["attacks"], "**worst case**": content["worst_case"]}
    assert len(shares) == 5
    ((_, _, *rows),) = tables(text)
    assert {row[0]: row[1:4] for row in rows} == {
        name: [f"{100 * part['count'] / 40:.2f}", "{:.2f} to {:.2f}".format(*part["interval"]), "40"]
        for name, part in shares.items()
    }
    assert f"{content['stability']['percent']:.2f}% [" in text
    means = dict(re.findall(r"([a-zA-Z][^,:]*) ([\d.e+-]+) \(n=40\)", lines(text, "- Means under pgd20:")[0]))
    assert [float(mean) for mean in means.values()] == [
        pytest.approx(content[name]["mean"], rel=1e-3) for name in ("lipschitz", "lipschitz_kl", "lipschitz_l2", "fosc")
    ]
    assert len(lines(text, "- Gradient masking")) == len(content["diagnostics"]["verdicts"]) > 0
    assert "- Evaluated with `planted command`, torch 0, float32, on cpu" in text
