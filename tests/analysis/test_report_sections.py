"""The parts of a report that are read from records: openings, classes, attacked images, curves, computing time."""

import base64
import json
import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from planted import planted
from records import FACTS, WHOLE
from safetensors.numpy import save_file
from typer.testing import CliRunner

from robust_arch.analysis.attacked_images import read_images
from robust_arch.analysis.claims import answers, decided, examine
from robust_arch.analysis.groups import main_group
from robust_arch.analysis.published.provenance import Provenance
from robust_arch.analysis.report import attacked_images, classes, computing, training_curves
from robust_arch.analysis.report.computing import Usage
from robust_arch.analysis.report.opening import opening
from robust_arch.architectures import ArchSpec, arch_name
from robust_arch.cli import app
from robust_arch.common.files import write_json
from robust_arch.data import ImageSet
from robust_arch.runs import Evaluation, RecordedRun, RunFacts, RunFolder
from robust_arch.runs.records import Status
from robust_arch.tracking.attacked_images import attacked_images as table_rows

Rows = Callable[..., pd.DataFrame]
WIDER = [ArchSpec("wide_resnet", (1, 1, 1), (8 * k, 16 * k, 32 * k)) for k in range(1, 5)]


def wider(name: str) -> pd.DataFrame:
    """A study in which every wider network is better by 2 points; its name is part of its run ids."""
    frame = planted(WIDER, lambda spec, _: 40 + spec.widths[0] / 4, seeds=2, sd=0.1).rows
    return frame.assign(run_id=name + frame["run_id"], study=name)


def test_a_study_opens_with_its_question_the_verdicts_of_the_command_and_its_figure() -> None:
    frame = wider("a")
    group = main_group(frame)
    assert group is not None
    (examined,) = examine(group)
    (verdict,) = answers(examined)
    # each step of 8 channels is worth 2 points: the closest pair gains -2 by being the smaller one
    assert verdict.startswith("More capacity lowers robust accuracy (C1): ruled out (more parameters, one pair: -")
    assert decided(examined) == (
        "Ruled out: more capacity lowers robust accuracy (C1: more parameters, one pair; more MACs, one pair)."
    )
    found = opening(frame, None, decided(examined), [verdict], "study1-")
    assert found.question == "Does capacity help?"
    assert (found.answer, found.facts[-1]) == (decided(examined), verdict)
    assert "of 4 architectures lies between 4" in found.facts[0]
    assert "as means over 2 seeds" in found.facts[0]
    without = opening(frame, None, "", [], "study1-")
    assert (without.answer, without.facts) == (found.facts[0], [])
    assert [figure.name for figure in found.figures] == ["study1-cost"]


def test_several_studies_are_one_report(tmp_path: Path) -> None:
    shared = wider("a").iloc[:2]
    for name, frame in (("a", wider("a")), ("b", pd.concat([wider("b"), shared.assign(study="b")]))):
        (tmp_path / name).mkdir()
        frame.to_csv(tmp_path / name / "results.csv", index=False)
    studies = [str(tmp_path / name) for name in ("a", "b")]
    refused = CliRunner().invoke(app, ["report", *studies])
    assert refused.exit_code != 0
    assert "--into" in str(refused.exception)
    done = CliRunner().invoke(app, ["report", *studies, "--into", str(tmp_path / "both")])
    assert done.exit_code == 0, done.output
    page = (tmp_path / "both" / "index.html").read_text(encoding="utf-8")
    assert "<h1>Studies a, b</h1>" in page
    assert page.count('class="question"') == 2
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    (block,) = re.findall('<script type="application/json"[^>]*>(.*?)</script>', page, flags=re.DOTALL)
    data = json.loads(block)
    assert len(data["runs"]) == len(data["rows"]["run"]) == 16  # of 8 runs each, and the two shared ones once
    members = {each["name"]: set(each["runs"]) for each in data["studies"]}
    assert [len(members[name]) for name in ("a", "b")] == [8, 10]
    assert len(members["a"] & members["b"]) == 2


def page_of(*folders: Path, into: Path) -> str:
    done = CliRunner().invoke(app, ["report", *map(str, folders), "--into", str(into)])
    assert done.exit_code == 0, done.output
    return (into / "index.html").read_text(encoding="utf-8")


def test_parts_of_a_study_with_one_name_are_one_choice(tmp_path: Path) -> None:
    for machine in ("x", "y"):
        (tmp_path / machine / "demo").mkdir(parents=True)
        wider(machine).to_csv(tmp_path / machine / "demo" / "results.csv", index=False)
    page = page_of(tmp_path / "x" / "demo", tmp_path / "y" / "demo", into=tmp_path / "both")
    (block,) = re.findall('<script type="application/json"[^>]*>(.*?)</script>', page, flags=re.DOTALL)
    assert [(each["name"], len(each["runs"])) for each in json.loads(block)["studies"]] == [("demo", 16)]


@pytest.mark.parametrize("unrecorded", [("seed",), ("params", "macs"), ("seed", "params", "macs")])
def test_what_an_imported_table_lacks_ends_no_report(unrecorded: tuple[str, ...], tmp_path: Path) -> None:
    last = [ArchSpec("wide_resnet", (1, 1, 1), (16, 32, width)) for width in (16, 32, 64)]
    frame = planted(last, lambda spec, _: 40 + spec.widths[2] / 8, seeds=2, sd=0.1).rows
    frame.assign(**dict.fromkeys(unrecorded, pd.NA)).to_csv(tmp_path / "results.csv", index=False)
    page = page_of(tmp_path, into=tmp_path / "page")
    assert "A smaller last stage, pair by pair" in page
    assert "every evaluation passed its checks" not in page  # a results.csv does not tell
    assert "a results.csv alone records neither checks nor warnings" in page


def test_the_meaning_of_best_is_not_claimed_for_imported_results(tmp_path: Path) -> None:
    wider("a").to_csv(tmp_path / "results.csv", index=False)
    mine = page_of(tmp_path, into=tmp_path / "mine")
    source = dict.fromkeys(("source", "licence", "best", "note", "file", "sha256", "mapping", "command"), "x")
    Provenance.read({**source, "selected_on": "test", "rows": 8, "left_out": 0}).write(tmp_path)
    imported = page_of(tmp_path, into=tmp_path / "imported")
    assert "numbers at `best` are optimistic" in imported
    for sentence in (
        "This holds for this project&#39;s own runs",
        "the smallest accuracy of the attacks in the table, which",
    ):
        assert (sentence in mine, sentence in imported) == (False, True)


def test_classes_that_one_study_lacks_are_counted(rows: Rows) -> None:
    frame = rows({"run_id": "a", "arch": "one"}, {"run_id": "b", "arch": "two"})
    found = classes.section(main_group(frame), {"a": np.array([[4, 4, 2]]), "b": np.array([[4, 3, 1], [5, 5, 5]])})
    assert found is not None
    assert found["classes"] == [0, 1]
    shown = {name: [cell["robust"] for cell in cells] for name, cells in found["rows"]}
    assert shown == {"one": ["50", "-"], "two": ["25", "100"]}


def record(study: Path, place: int, robust: dict[str, int]) -> None:
    """A run on ten images of one class each for 0 and 1; robust: weights to how many images of class 0 withstand."""
    run = RunFolder(study / "runs" / f"{study.name}{place}")
    run.evaluations.mkdir(parents=True)
    spec = ArchSpec("wide_resnet", (1, 1, 1), (8 + place, 16, 32))
    own = {"run_id": run.run_id, "study": study.name, "arch": arch_name(spec), "widths": spec.widths_text}
    run.write_state("completed", FACTS.model_copy(update=own))
    run.write_result(WHOLE)
    for weights, count in robust.items():
        label = np.arange(10) % 2
        flags = np.logical_and(label == 0, np.arange(10) < 2 * count)
        share = {"n": 10, "count": count, "percent": 10.0 * count, "interval": [0.0, 100.0]}
        content = {
            "checkpoint": "best", "weights": weights, "threat": "linf-0.2", "n_test": 10, "data": "digits",
            "clean": {**share, "count": 10, "percent": 100.0}, "attacks": {"pgd20": share}, "worst_case": share,
            "eval_id": weights, "run_id": run.run_id, "examples_fingerprint": "0",
        }  # fmt: skip
        write_json(run.evaluations / f"{weights}.json", content)
        arrays = {"index": np.arange(10), "clean": np.ones(10, bool), "pgd20": flags, "label": label}
        np.savez(run.evaluations / f"{weights}.npz", **arrays)


def test_classes_of_several_studies_are_of_one_evaluation(tmp_path: Path) -> None:
    for place in range(3):
        record(tmp_path / "a", place, {"raw": 2})
    for place in range(3, 5):
        record(tmp_path / "b", place, {"raw": 1, "ema": 4})  # alone this study is shown with averaged weights

    def of_class_0(page: str) -> list[str]:
        (table,) = re.findall(r'<table class="classes">.*?</table>', page, flags=re.DOTALL)
        return re.findall(r"</th><td[^>]*>(\d+) <small>100</small>", table)

    assert of_class_0(page_of(tmp_path / "b", into=tmp_path / "alone")) == ["80", "80"]
    both = page_of(tmp_path / "a", tmp_path / "b", into=tmp_path / "both")
    assert of_class_0(both) == ["40", "40", "40", "20", "20"]


def test_classes_are_counted_and_averaged_over_runs(rows: Rows) -> None:
    frame = rows({"run_id": "a", "seed": 0}, {"run_id": "b", "seed": 1})
    counts = {"a": np.array([[10, 9, 5], [20, 20, 0], [0, 0, 0]]), "b": np.array([[10, 7, 2], [20, 20, 10], [0, 0, 0]])}
    found = classes.section(main_group(frame), counts)
    assert found is not None
    assert found["classes"] == [0, 1]  # no image of class 2 was tested
    ((_, cells),) = found["rows"]
    assert [(cell["robust"], cell["clean"]) for cell in cells] == [("35", "80"), ("25", "100")]
    assert classes.section(main_group(frame), {}) is None


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, RunFolder, Evaluation]:
    """The file of ten saved images of an evaluation, to be written."""
    run = RunFolder(tmp_path / "runs" / "a")
    run.evaluations.mkdir(parents=True)
    share = {"n": 10, "count": 4, "percent": 40.0, "interval": [16.8, 68.7]}
    record = Evaluation.read(
        {
            "eval_id": "e", "checkpoint": "best", "weights": "raw", "threat": "linf-0.1", "n_test": 10,
            "data": "digits", "examples_fingerprint": "0", "clean": share,
            "attacks": {"pgd20": {**share, "images": True}},
        }
    )  # fmt: skip
    return run.evaluations / "e.pgd20.safetensors", run, record


def test_attacked_images_are_those_of_the_file(saved: tuple[Path, RunFolder, Evaluation]) -> None:
    path, run, record = saved
    x = np.arange(10 * 2 * 2, dtype=np.uint8).reshape(10, 1, 2, 2) % 17
    x_adv = np.clip(x / 16 + np.linspace(0.05, 0.1, 10)[:, None, None, None], 0, 1).astype(np.float32)
    tensors = {"index": np.arange(10), "x": x, "x_adv": x_adv, "label": np.arange(10), "predicted": np.arange(10) % 3}
    save_file(tensors, path, metadata={"attack": "pgd20", "max_value": "16"})
    images = read_images(run, record, "pgd20", 8)
    assert images is not None
    (strip,) = attacked_images.section({"net, seed 0": images})
    assert (strip["labels"], strip["predicted"]) == ([*range(8)], [i % 3 for i in range(8)])
    largest = np.abs(x_adv - x / 16)[:8].max()  # of these images together, so that their greys can be compared
    expected = {"clean": x / 16, "attacked": x_adv, "change": 0.5 + (x_adv - x / 16) / (2 * largest)}
    assert list(strip["pictures"]) == list(expected)
    for what, pictures in strip["pictures"].items():
        for picture, values in zip(pictures, expected[what], strict=False):
            drawn = np.asarray(Image.open(BytesIO(base64.b64decode(picture))))
            assert drawn.tolist() == np.rint(255 * values[0]).astype(int).tolist()
    assert strip["largest"] == f"{largest:.3g}"


def test_attacked_images_of_earlier_versions_are_shown_without_what_they_lack(
    saved: tuple[Path, RunFolder, Evaluation], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, run, record = saved
    test = ImageSet(torch.arange(48, dtype=torch.uint8).reshape(12, 1, 2, 2), torch.arange(12) % 5, 5)
    index = torch.arange(10) + 2
    attacked = (
        test.to_unit(test.images[index]).numpy() + np.linspace(0.0, 0.1, 10, dtype=np.float32)[:, None, None, None]
    )
    save_file({"index": index.numpy(), "x_adv": attacked}, path)
    images = read_images(run, record, "pgd20", 3)
    assert images is not None
    (strip,) = attacked_images.section({"net, seed 0": images})
    assert (list(strip["pictures"]), strip["labels"], strip["largest"]) == (["attacked"], None, None)
    monkeypatch.setattr(RunFolder, "outcomes", lambda _, __: {"pgd20": np.arange(10) % 2 == 0})

    def rows(data: str) -> list[dict[str, Any]]:
        facts = RunFacts.model_construct(data=data)
        status = Status.model_construct(run=facts)
        recorded = RecordedRun(run, status, "completed", None, None)
        monkeypatch.setattr(RunFolder, "evaluation_records", lambda _: [record])
        return list(table_rows(recorded, test, 3))

    shown = rows("digits")
    assert [(row["image"], row["label"], row["correct"]) for row in shown] == [
        (2, 2, True),
        (3, 3, False),
        (4, 4, True),
    ]
    assert shown[1]["clean"].ravel().tolist() == [12, 13, 14, 15]
    assert shown[0]["difference"].tolist() == np.full((2, 2, 1), 128).tolist()  # unchanged
    assert shown[2]["difference"].tolist() == np.full((2, 2, 1), 255).tolist()
    assert rows("svhn") == []  # its clean images are not those of this test set


@pytest.mark.parametrize("content", [None, b"\x00" * 20, {"x_adv": np.zeros((2, 1, 2, 2), np.float32)}])
def test_attacked_images_that_cannot_be_read_are_left_out(
    content: Any, saved: tuple[Path, RunFolder, Evaluation]
) -> None:
    path, run, record = saved
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        save_file(content, path)
    assert read_images(run, record, "pgd20", 8) is None


def test_images_of_another_seed_than_the_recorded_one_are_left_out(saved: tuple[Path, RunFolder, Evaluation]) -> None:
    path, run, record = saved
    save_file({"index": np.arange(10), "x_adv": np.zeros((10, 1, 2, 2), np.float32)}, path)
    assert read_images(run, record, "pgd20", 8) is not None
    without = record.attacks["pgd20"].model_copy(update={"images": False})
    assert read_images(run, record.model_copy(update={"attacks": {"pgd20": without}}), "pgd20", 8) is None


def test_curves_have_a_line_per_run_and_mark_best_and_last(rows: Rows) -> None:
    frame = rows({"run_id": "a", "seed": 0}, {"run_id": "b", "seed": 1})
    epochs = pd.DataFrame(
        [
            {
                "run_id": run,
                "epoch": epoch,
                "train_acc": 10.0 * epoch,
                "val_robust_acc": value,
                "val_robust_count": value,
            }
            for run in ("a", "b")
            for epoch, value in enumerate((20.0, 40.0, 30.0))
        ]
    )
    found = training_curves.section(main_group(frame), epochs, {"b": 0})
    assert found is not None
    ((first, second),) = [picture["runs"] for picture in found["pictures"]]
    assert first["marks"]["best"][2] == "40.0% at epoch 2"  # the first with most robust held-out images
    assert second["marks"]["best"][2] == "20.0% at epoch 1"  # as recorded
    assert first["marks"]["last"][2] == "30.0% at epoch 3"
    heights = [float(point.split(",")[1]) for point in first["lines"]["held_out"].split()]
    assert heights[0] - heights[2] == pytest.approx((heights[0] - heights[1]) / 2, abs=0.1)
    assert training_curves.section(main_group(frame), None, {}) is None
    longest = training_curves.section(main_group(frame), epochs.assign(epoch=epochs["epoch"] * 100_000), {})
    assert longest is not None
    assert [text for _, text in longest["x_ticks"]] == ["50,000", "100,000", "150,000", "200,000"]


def test_computing_time_is_added_up_by_hardware() -> None:
    cpu, gpu = ("AMD EPYC", "cpu", "1", "32-true", "2.9"), ("H100", "cuda", "-", "bf16-mixed", "2.9")
    found = computing.section([Usage(cpu, 5400, 1800), Usage(gpu, 7200, None), Usage(cpu, 1800, 1800)])
    assert found["sentence"].startswith("Training took 2.0 hours of CPU and 2.0 hours of GPU, added up over 3 runs")
    assert found["head"] == (
        "hardware",
        "device",
        "threads",
        "precision",
        "torch",
        "runs",
        "training (h)",
        "attacks (h)",
    )
    assert found["rows"] == [("AMD EPYC", "cpu", "1", "32-true", "2.9", "2", "2.0", "1.0"), (*gpu, "1", "2.0", "-")]
    unknown = computing.section([Usage(("not recorded", *"----"), 600, None)])
    assert unknown["sentence"] == "Training took 10 minutes."
    assert unknown["rows"] == []
    without = computing.section([Usage(cpu, None, None), Usage(gpu, 7200, None)])
    assert without["sentence"].startswith("Training took 2.0 hours of GPU, added up over 2 runs")
    assert ("AMD EPYC", "cpu", "1", "32-true", "2.9", "1", "-") in without["rows"]  # not 0 hours
