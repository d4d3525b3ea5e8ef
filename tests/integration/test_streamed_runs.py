"""Runs on images that are decoded while they are used: the same bits with any number of processes, and when resumed."""

import signal

import numpy as np
import pytest
import torch
from composition import configuration
from PIL import Image
from stopping import stopped_at

from robust_arch.common.process import exit_now
from robust_arch.configuration.settings import read_settings
from robust_arch.execution.evaluate_checkpoint import evaluate
from robust_arch.execution.execute import execute
from robust_arch.execution.run import Run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three classes of images of different sizes, 8 to train and 3 to test on each."""
    root = tmp_path_factory.mktemp("imagenet")
    generator = np.random.default_rng(0)
    for part, count in (("train", 8), ("val", 3)):
        for name in ("n01", "n02", "n03"):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (10 + number, 18 - number, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{number}.JPEG")
    return root


@pytest.fixture
def loaded(folder, tmp_path):
    """A function from overrides to a loaded run of two epochs of three batches of 6."""

    def make(*overrides):
        cfg = configuration(
            tmp_path, "arch.depths=[1,1,1]", "arch.widths=[4,8,8]", "logger=csv", "data=imagenet",
            f"data.root={folder}", "data.image_size=8", "data.resize=9", "data.val_fraction=0.25",
            "recipe.batch_size=6", "objective=natural", "trainer.accelerator=cpu", "trainer.precision=32",
            "trainer.threads=1", "trainer.max_epochs=2", "evaluate.attacks=[fgsm]", "evaluate.n=6", *overrides,
        )  # fmt: skip
        return Run.load(read_settings(cfg))

    return make


@pytest.mark.slow  # processes start slowly
def test_processes_and_a_stop_within_an_epoch_change_no_bit(loaded, tmp_path, monkeypatch):
    alone, several = loaded("data.workers=0", "study.name=alone"), loaded("data.workers=2", "study.name=several")
    assert alone.run_id == several.run_id
    assert execute(alone) == "completed"
    with monkeypatch.context() as patch:
        stopped_at(patch, 4)  # of the second epoch the second
        before = signal.signal(signal.SIGTERM, exit_now)
        try:
            with pytest.raises(SystemExit):
                execute(several)
        finally:
            signal.signal(signal.SIGTERM, before)
    assert torch.load(several.folder.checkpoint("interrupted"), weights_only=True)["global_step"] == 5
    assert execute(several) == "completed"
    one, other = (torch.load(run.folder.checkpoint("last"), weights_only=True) for run in (alone, several))
    assert one["global_step"] == other["global_step"] == 6
    assert all(torch.equal(one["state_dict"][key], other["state_dict"][key]) for key in one["state_dict"])
    data = alone.folder.result.plain()["data"]
    assert (data["train"], data["val"], data["test"]) == (18, 6, 9)
    assert data["reading"]["train"]["converted"] == {"resized and cropped to 8x8": 24}
    # the checkpoint names its data set, which is opened again
    again = evaluate(
        configuration(
            tmp_path, f"checkpoint={alone.folder.checkpoint('last')}", "evaluate.n=null", "evaluate.attacks=[fgsm]",
            "trainer.accelerator=cpu", config="evaluate",
        )
    )  # fmt: skip
    assert again.content["n_test"] == 9
