"""A run on a folder of images: its record says what became of the files."""

import json

import numpy as np
import pytest
from PIL import Image

from robust_arch.configuration.settings import read_settings
from robust_arch.execution.execute import execute
from robust_arch.execution.run import Run


@pytest.fixture
def images(tmp_path):
    """Two classes of colours, with a grey image, a sub-folder and a note among the training images."""
    root = tmp_path / "images"
    generator = np.random.default_rng(0)
    for part, count in (("train", 12), ("test", 4)):
        for name in ("cat", "dog"):
            (root / part / name / "more").mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{number}.png")
    Image.fromarray(generator.integers(0, 256, (8, 8), dtype=np.uint8)).save(root / "train" / "cat" / "more" / "g.png")
    (root / "train" / "dog" / "notes.txt").write_text("not an image")
    return root


def overrides(images, *others):
    return ("data=image_folder", f"data.root={images}", f"data.cache={images}/../cache", "data.name=pets",
            "data.val_fraction=0.2", "recipe.batch_size=4", "trainer.max_epochs=1", "evaluate.n=null",
            "evaluate.attacks=[fgsm]", *others)  # fmt: skip


def test_the_record_has_the_counts_and_is_the_same_from_the_cache(images, composed):
    for extra in ((), ("rerun=true",)):
        run = Run.load(read_settings(composed(*overrides(images, *extra))))
        assert execute(run) == "completed"
        recorded = json.loads((run.folder.path / "result.json").read_text())["data"]
        assert (recorded["train"], recorded["val"], recorded["test"]) == (20, 5, 8)
        train, test = (recorded["reading"][part] for part in ("train", "test"))
        assert (train["read"], train["noted"]) == (25, {"in sub-folders": 1})
        assert (train["skipped"], train["converted"]) == ({".txt files": 1}, {"grey to RGB": 1})
        assert test == {"read": 8, "noted": {}, "skipped": {}, "converted": {}}


def test_a_part_of_a_folder_s_images_can_be_trained_on(images, composed):
    run = Run.load(read_settings(composed(*overrides(images, "data.train_images=8"))))
    assert run.splits.train.labels.bincount().tolist() == [4, 4]
    assert (run.splits.train.reading.read, len(run.splits.val)) == (25, 5)
