"""Evaluation records as entries of RobustBench, against one of its own files."""

import json
from pathlib import Path

import pytest
from records import FACTS, WHOLE
from typer.testing import CliRunner

from robust_arch.cli import app
from robust_arch.runs import RunFolder

# model_info/cifar10/Linf/Huang2021Exploring_ema.json of https://github.com/RobustBench/robustbench at 0e4ba95
PUBLISHED = {
    "link": "https://arxiv.org/abs/2110.03825",
    "name": "Exploring Architectural Ingredients of Adversarially Robust Deep Neural Networks",
    "authors": "Hanxun Huang, Yisen Wang, Sarah Monazam Erfani, Quanquan Gu, James Bailey, Xingjun Ma",
    "additional_data": True,
    "number_forward_passes": 1,
    "dataset": "cifar10",
    "venue": "NeurIPS 2021",
    "architecture": "WideResNet-34-10",
    "eps": "8/255",
    "clean_acc": "91.23",
    "reported": "62.54",
    "autoattack_acc": "62.54",
    "footnote": "Uses exponential moving average (EMA)",
    "unreliable": False,
}


def share(count):
    return {"count": count, "n": 10_000, "percent": count / 100, "interval": [0.0, 100.0]}


RECORD = {
    "run_id": FACTS.run_id,
    "checkpoint": "best",
    "weights": "ema",
    "threat": "linf-8/255",
    "data": "cifar10",
    "n_test": 10_000,
    "clean": share(9123),
    "attacks": {"pgd20": share(6500), "autoattack": {**share(6254), "implementation": "pyautoattack 0.2.0"}},
}


@pytest.fixture
def written(tmp_path):
    """A function that writes a record and returns its path; in a run's folder, unless told otherwise."""

    def write(folder=f"runs/{FACTS.run_id}/evaluations", **changes):
        path = tmp_path / folder / "abc.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({**RECORD, **changes}))
        return path

    return write


def export(source, out):
    result = CliRunner().invoke(app, ["export", str(source), str(out), "--format", "robustbench"])
    return result, json.loads(Path(out).read_text()) if result.exit_code == 0 else None


def test_the_entry_of_a_run_has_the_fields_of_a_published_one(written, tmp_path):
    path = written()
    run = RunFolder(path.parents[1])
    run.write_state("completed", FACTS)
    data = {"name": "cifar10", "fingerprint": "f", "train": 9, "val": 1, "test": 10_000}
    extra = {"name": "gen", "file": "x.npz", "images": 5, "fraction": 0.5, "per_batch": 2, "fingerprint": "g"}
    run.write_result({**WHOLE, "data": {**data, "extra": extra}})
    result, entry = export(path, tmp_path / "Mine2026Network.json")
    assert result.exit_code == 0, result.output
    assert list(entry) == list(PUBLISHED)
    own = {"link": None, "name": None, "authors": None, "venue": None, "reported": None}
    own |= {"architecture": FACTS.arch, "footnote": "10,000 test images, ema weights, pyautoattack 0.2.0"}
    assert entry == PUBLISHED | own


def test_of_a_network_that_is_no_run_less_is_known(written, tmp_path):
    flagged = {**RECORD["attacks"]["autoattack"], "warnings": ["it seems to be a dynamic defense"]}
    path = written("mine", model="ResNet", threat="l2-1/2", attacks={"autoattack": flagged})
    _, entry = export(path, tmp_path / "entry.json")
    found = {key: entry[key] for key in ("additional_data", "number_forward_passes", "architecture", "eps")}
    assert found == {
        "additional_data": None,
        "number_forward_passes": None,
        "architecture": "ResNet",
        "eps": "1/2",
    }
    assert entry["unreliable"] is True


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attacks": {"pgd20": share(1)}}, "attacks = 'pgd20': expected autoattack among them"),
        ({"invalid": ["finite logits: NaN"]}, "expected a valid evaluation; this one is not: finite logits: NaN"),
        ({"clean": 3}, "expected an evaluation record"),
    ],
)
def test_a_record_that_cannot_be_an_entry_is_one_error(changes, message, written, tmp_path):
    result, _ = export(written(**changes), tmp_path / "entry.json")
    assert result.exit_code == 1
    assert message in result.output
    assert not (tmp_path / "entry.json").exists()


def test_no_other_file_is_read_and_none_replaced(written, tmp_path):
    out = tmp_path / "entry.json"
    assert "expected an evaluation record" in export(tmp_path / "missing.json", out)[0].output
    out.write_text("mine")
    assert "--force replaces it" in export(written(), out)[0].output
    arguments = ["export", str(tmp_path / "x"), str(out), "--format", "robustbench", "--weights", "raw"]
    assert "expected no arch, --layout or --weights" in CliRunner().invoke(app, arguments).output
    assert out.read_text() == "mine"
